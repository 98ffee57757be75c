"""Domains: allowed by administrators, verified by whoever they are allowed to."""

import pytest

from spokes.errors import ForbiddenError, LimitError, NameRefusedError, NotFoundError
from spokes.model import domains
from spokes.model.domains import LOST_AFTER_COUNT, AllowDomains, NoteDomainCheck, RemoveDomains, ResetDomains
from spokes.model.operation import SYSTEM
from tests.model.tenants import UNKNOWN

SETTING = [
    lambda uid: AllowDomains(uid, ["shop.example.org"]), lambda uid: RemoveDomains(uid, ["mara.example.org"]),
    ResetDomains,
]  # fmt: skip


def test_administrator_allows_removes_and_resets(world):
    uid = world.mara.user.uid
    allowed = world.do(world.admin, AllowDomains(uid, ["*.Shop.example.org", "mara.example.org"]))
    assert allowed.domains == ("*.shop.example.org", "mara.example.org")
    assert world.do(world.admin, RemoveDomains(uid, ["mara.example.org", "x.org"])).domains == ("*.shop.example.org",)
    assert world.do(world.admin, ResetDomains(uid)).domains == ()


@pytest.mark.parametrize("operation", SETTING)
def test_tenant_is_refused_and_unknown_users_too(world, operation):
    for uid in (world.mara.user.uid, world.lind.user.uid):
        world.refuses(ForbiddenError, world.mara.principal, operation(uid))
        world.refuses(ForbiddenError, world.mara.client, operation(uid))
    world.refuses(NotFoundError, world.admin, operation(UNKNOWN))


@pytest.mark.parametrize("name", ["", "no name", "a..b", "*."])
def test_what_is_no_domain_is_refused(world, name):
    world.refuses(NameRefusedError, world.admin, AllowDomains(world.mara.user.uid, [name]))


def test_more_domains_than_one_change_holds_are_refused(world, monkeypatch):
    monkeypatch.setattr(domains, "DOMAIN_COUNT_MAX", 2)
    world.refuses(LimitError, world.admin, AllowDomains(world.mara.user.uid, ["a.org", "b.org"]))


def test_owner_has_what_is_allowed_to_them_noted_and_nothing_else(world):
    mara = world.mara
    noted = world.do(mara.principal, NoteDomainCheck(mara.user.uid, "mara.example.org", seen=True))
    assert noted.proved > 0
    world.refuses(NotFoundError, mara.principal, NoteDomainCheck(mara.user.uid, "shop.example.org", seen=True))
    world.refuses(
        NotFoundError, mara.principal, NoteDomainCheck(world.lind.user.uid, "lind.example.org", seen=True)
    )
    world.refuses(ForbiddenError, mara.client, NoteDomainCheck(mara.user.uid, "mara.example.org", seen=True))


def test_verification_is_lost_after_looks_in_a_row_without_a_record(world):
    uid = world.mara.user.uid
    world.do(SYSTEM, NoteDomainCheck(uid, "mara.example.org", seen=True))
    noted = [
        world.do(SYSTEM, NoteDomainCheck(uid, "mara.example.org", seen=False)).proved > 0
        for _ in range(LOST_AFTER_COUNT)
    ]
    assert noted == [True] * (LOST_AFTER_COUNT - 1) + [False]
