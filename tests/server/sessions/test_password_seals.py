from __future__ import annotations

import pytest

from spokes.password_hash import fits, hash_of
from spokes.server.sessions import password_seals
from spokes.server.sessions.password_seals import PasswordSeals
from spokes.wire.rules import Site

UID = "1" * 32


@pytest.fixture
def made(monkeypatch):
    """What was hashed or held against a hash."""
    texts = []

    def counting(text, hashes):
        texts.append(text)
        return original(text, hashes)

    original = password_seals._kept_or_made
    monkeypatch.setattr(password_seals, "_kept_or_made", counting)
    return texts


async def test_seals_password_that_fits_the_stored_hash_keeps_it(made):
    stored = [{"domain": "shop.example.org", "password": hash_of("sesame")}]
    (sealed,) = (await PasswordSeals().of(UID, [Site(domain="Shop.example.org", password="sesame")], stored)).values()
    assert sealed == stored[0]["password"]
    (other,) = (await PasswordSeals().of(UID, [Site(domain="shop.example.org", password="other")], stored)).values()
    assert fits(other, "other")


async def test_seals_of_a_list_said_again_cost_nothing(made):
    seals, sites = PasswordSeals(), [Site(domain="a.example.org", password="sesame", basic_http_auth="a:b")]
    first = await seals.of(UID, sites, [])
    assert await seals.of(UID, sites, []) == first
    assert made == ["sesame", "a:b"]
    assert await seals.of("2" * 32, sites, []) != first       # another tunnel's is another secret


async def test_seals_hashes_and_texts_that_can_be_no_rule_are_passed_over(made):
    sites = [Site(domain="a.example.org", password=hash_of("x")), Site(domain="b.example.org", password="x" * 513)]
    assert await PasswordSeals().of(UID, sites, []) == {} and made == []


async def test_seals_of_one_list_are_bounded(monkeypatch, made):
    monkeypatch.setattr(password_seals, "HASH_COUNT_MAX", 2)
    sites = [Site(domain=f"s{number}.example.org", password="sesame") for number in range(4)]
    seals = PasswordSeals()
    assert [domain for domain, _ in await seals.of(UID, sites, [])] == ["s0.example.org", "s1.example.org"]
    assert len(await seals.of(UID, sites, [])) == 4           # the next list sets the others
    assert len(made) == 4
