"""Verified domains checked again, with a real name server."""

import pytest

from spokes import clock
from spokes.config_values import Address
from spokes.model.domains import LOST_AFTER_COUNT, NoteDomainCheck
from spokes.model.users import CreateUser
from spokes.server.process.domain_verification import RECHECK_S, DomainVerification
from tests.support.name_server import name_server
from tests.support.operations import do

ZONE = "example.org"


@pytest.fixture(scope="module")
def names():
    with name_server(ZONE) as server:
        yield server


async def test_verification_whose_record_is_gone_is_lost_after_three_checks_and_not_checked_before_its_time(
    server, store, names
):
    user = do(store, CreateUser())
    verification = DomainVerification(server._store, [names.address])
    names.put_txt("_spokes-proof", store.domain_verifications.challenge(user.uid, ZONE))
    do(store, NoteDomainCheck(user.uid, ZONE, seen=True))
    before = store.domain_verifications.select()
    await verification.check(clock.wall_s())
    assert store.domain_verifications.select() == before
    await verification.check(clock.wall_s() + RECHECK_S)
    (seen,) = store.domain_verifications.select()
    assert (seen.failures, seen.proved) == (0, before[0].proved)
    names.put_txt("_spokes-proof")
    for failures in range(1, LOST_AFTER_COUNT + 1):
        await verification.check(clock.wall_s() + RECHECK_S)
        assert store.domain_verifications.select()[0].failures == failures
    assert not store.domain_verifications.select()[0].proved


async def test_name_server_that_is_away_takes_no_verification(server, store):
    user = do(store, CreateUser())
    do(store, NoteDomainCheck(user.uid, ZONE, seen=True))
    before = store.domain_verifications.select()
    await DomainVerification(server._store, [Address("127.0.0.1", 9)]).check(clock.wall_s() + RECHECK_S)
    assert store.domain_verifications.select() == before
