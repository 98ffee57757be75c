"""API keys: everybody makes their own, and none that may do more than they may."""

from dataclasses import replace

import pytest

from spokes.errors import ForbiddenError, LimitError, NotFoundError, ValueRefusedError
from spokes.ids import ZERO_UID
from spokes.model import api_keys
from spokes.model.api_keys import CreateApiKey, DeleteApiKey, EditApiKey
from tests.model.tenants import UNKNOWN


def test_tenant_creates_edits_and_deletes_their_own(world):
    mara = world.mara
    key, value = world.do(mara.principal, CreateApiKey("desk", scopes=["write", "read"], user_uid=mara.user.uid))
    assert (key.scopes, world.store.api_keys.find(value).uid) == (("read", "write"), key.uid)
    edited = world.do(mara.principal, EditApiKey(key.uid, description="till", active=False))
    assert (edited.description, edited.active) == ("till", False)
    world.do(mara.principal, DeleteApiKey(key.uid))
    with pytest.raises(NotFoundError):
        world.store.api_keys.get(key.uid)


@pytest.mark.parametrize("owner", ["another's", "the system's", "nobody's"])
def test_key_of_another_is_not_made(world, owner):
    uid = {"another's": world.lind.user.uid, "the system's": ZERO_UID, "nobody's": UNKNOWN}[owner]
    world.refuses(NotFoundError, world.mara.principal, CreateApiKey("x", user_uid=uid))
    world.refuses(ForbiddenError, world.mara.client, CreateApiKey("x", user_uid=uid))


@pytest.mark.parametrize("operation", [lambda uid: EditApiKey(uid, active=False), DeleteApiKey])
def test_key_of_another_is_not_there(world, operation):
    world.refuses(NotFoundError, world.mara.principal, operation(world.lind.api_key.uid))
    world.refuses(NotFoundError, world.admin, operation(UNKNOWN))
    world.do(world.admin, operation(world.lind.api_key.uid))


def test_key_gets_no_scope_that_its_maker_lacks(world):
    writer = replace(world.admin, scopes=("write",))
    world.refuses(ForbiddenError, writer, CreateApiKey("x", scopes=["read", "write"]))
    world.refuses(ForbiddenError, world.admin, CreateApiKey("x", scopes=["replication"]))
    world.do(writer, CreateApiKey("x", scopes=["write"]))


@pytest.mark.parametrize("value", [{"scopes": []}, {"scopes": ["root"]}, {"description": "a\nb"}])
def test_bad_value_is_refused(world, value):
    world.refuses(ValueRefusedError, world.admin, CreateApiKey(**{"description": "x", **value}))


def test_owner_has_a_number_of_keys_at_most(world, monkeypatch):
    monkeypatch.setattr(api_keys, "API_KEY_COUNT_MAX", 1)
    world.refuses(LimitError, world.mara.principal, CreateApiKey("x", user_uid=world.mara.user.uid))


def test_key_that_is_switched_off_or_deleted_ends_its_sessions(world):
    uid = world.mara.api_key.uid
    for operation in (EditApiKey(uid, active=False), DeleteApiKey(uid)):
        world.store.logins.create(api_key_uid=uid)
        world.do(world.mara.principal, operation)
        assert world.store.logins.select() == []
        if isinstance(operation, EditApiKey):
            world.do(world.mara.principal, EditApiKey(uid, active=True))
