"""Passwords and second factors: one's own with the present ones, others' by administrators, hashed alone."""

from dataclasses import replace

import pytest

from spokes.errors import ForbiddenError, NotFoundError, NotSignedInError, ValueRefusedError
from spokes.model.passwords import Held, SetPassword, SetTotp
from tests.model.tenants import UNKNOWN
from tests.support.operations import TOTP_SECRET, password_hash

SETTING = {
    "password": (SetPassword, password_hash("new"), lambda user: user.password_hash),
    "second factor": (SetTotp, TOTP_SECRET, lambda user: user.totp_secret),
}


@pytest.mark.parametrize("what", SETTING)
def test_own_secret_is_set_with_the_present_ones(world, what):
    operation, value, read = SETTING[what]
    mara = world.mara
    world.refuses(ForbiddenError, mara.principal, operation(mara.user.uid, value))
    world.refuses(NotSignedInError, mara.principal, operation(mara.user.uid, value, held=Held("another", "")))
    assert read(world.do(mara.principal, operation(mara.user.uid, value, held=Held("", "")))) == value


@pytest.mark.parametrize("what", SETTING)
def test_administrator_sets_and_takes_those_of_others(world, what):
    operation, value, read = SETTING[what]
    assert read(world.do(world.admin, operation(world.mara.user.uid, value))) == value
    assert read(world.do(world.admin, operation(world.mara.user.uid, ""))) == ""


@pytest.mark.parametrize("what", SETTING)
def test_secret_of_another_is_not_a_tenants_to_set(world, what):
    operation, value, _ = SETTING[what]
    world.refuses(NotFoundError, world.mara.principal, operation(world.lind.user.uid, value))
    world.refuses(ForbiddenError, world.mara.client, operation(world.mara.user.uid, value))
    world.refuses(NotFoundError, world.admin, operation(UNKNOWN, value))


@pytest.mark.parametrize("what", SETTING)
def test_secret_of_an_administrator_is_set_by_who_may_make_some(world, what):
    operation, value, _ = SETTING[what]
    key = replace(world.admin, scopes=("write",))
    world.do(key, operation(world.mara.user.uid, value))
    other = replace(world.admin, uid=world.admin.uid)
    world.refuses(ForbiddenError, key, operation(world.boss.uid, value))
    world.refuses(ForbiddenError, other, operation(world.boss.uid, value))


@pytest.mark.parametrize("text", ["correct horse battery", "$argon2id$", "$2b$12$" + "x" * 53, "\ud800"])
def test_password_that_is_not_hashed_is_refused(world, text):
    world.refuses(ValueRefusedError, world.admin, SetPassword(world.mara.user.uid, text))


@pytest.mark.parametrize("text", ["secret", TOTP_SECRET.lower(), TOTP_SECRET + "A", "1" * 32])
def test_second_factor_that_is_no_secret_of_ours_is_refused(world, text):
    world.refuses(ValueRefusedError, world.admin, SetTotp(world.mara.user.uid, text))


def test_sessions_end_but_the_one_that_asked(world):
    mara, logins = world.mara, world.store.logins
    kept, _ = logins.create(user_uid=mara.user.uid)
    logins.create(user_uid=mara.user.uid)
    world.do(mara.principal, SetPassword(mara.user.uid, password_hash("new"), but_login=kept.uid, held=Held("", "")))
    assert [one.uid for one in logins.select()] == [kept.uid]
