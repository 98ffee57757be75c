"""The TXT record of a proof, asked of a real name server."""

import pytest

from spokes.config_values import Address
from spokes.domain_verification import has_record
from spokes.errors import VerificationLookupError
from spokes.ids import verification_record
from tests.support.name_server import name_server

ZONE = "example.org"
VALUE = "ab" * 20


@pytest.fixture(scope="module")
def names():
    with name_server(ZONE) as server:
        yield server


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ((VALUE,), True),
        (("v=spf1 -all", VALUE), False),  # two strings of one record are one text
        ((VALUE[:10], VALUE[10:]), True),
        ((VALUE[:-1],), False),
        ((), False),
    ],
)
def test_record_is_seen_as_it_is_served(names, texts, expected):
    names.put_txt("_spokes-proof", *texts)
    assert has_record(ZONE, VALUE, [names.address]) is expected
    assert has_record(f"*.{ZONE}", VALUE, [names.address]) is expected


def test_record_of_a_name_below_proves_nothing_above(names):
    names.put_txt("_spokes-proof")
    names.put_txt("_spokes-proof.shop", VALUE)
    assert has_record(f"shop.{ZONE}", VALUE, [names.address])
    assert not has_record(ZONE, VALUE, [names.address])


def test_name_server_that_does_not_answer_is_no_answer(names):
    with pytest.raises(VerificationLookupError):
        has_record("example.com", VALUE, [names.address])  # refused: it serves another zone
    with pytest.raises(VerificationLookupError):
        has_record(ZONE, VALUE, [Address("127.0.0.1", 9)])


def test_record_name_is_the_same_for_a_domain_and_what_is_under_it():
    assert verification_record("*.example.org") == verification_record("example.org") == "_spokes-proof.example.org"
