"""Users: administrators alone make, change and delete them, and nobody takes their own rights away."""

from dataclasses import replace

import pytest

from spokes.errors import ForbiddenError, NotFoundError, TakenError, ValueRefusedError
from spokes.ids import ZERO_UID
from spokes.model.users import COUNT_MAX, MEGABYTES_MAX, CreateUser, DeleteUser, EditUser
from tests.model.tenants import UNKNOWN


def test_administrator_creates_edits_and_deletes(world):
    user = world.do(world.admin, CreateUser(email="new@example.org", max_tunnels=3))
    assert world.do(world.admin, EditUser(user.uid, fullname="New", role="admin")).role == "admin"
    assert world.do(world.admin, DeleteUser(world.mara.user.uid)) == [world.mara.tunnel.uid]
    assert world.store.users.find(world.mara.user.uid) is None


@pytest.mark.parametrize("operation", [
    lambda w: CreateUser(email="new@example.org"), lambda w: EditUser(w.mara.user.uid, max_tunnels=0),
    lambda w: DeleteUser(w.lind.user.uid), lambda w: DeleteUser(w.mara.user.uid),
])
def test_tenant_is_refused(world, operation):
    world.refuses(ForbiddenError, world.mara.principal, operation(world))
    world.refuses(ForbiddenError, world.mara.client, operation(world))


@pytest.mark.parametrize("operation", [
    lambda w: EditUser(w.boss.uid, active=False), lambda w: EditUser(w.boss.uid, role="basic"),
    lambda w: DeleteUser(w.boss.uid),
])
def test_administrator_takes_no_rights_from_themselves(world, operation):
    world.refuses(ForbiddenError, world.admin, operation(world))
    world.do(world.admin, EditUser(world.boss.uid, phone="1"))


def test_administrator_without_a_scope_makes_no_administrator(world):
    writer = replace(world.admin, scopes=("write",))
    world.refuses(ForbiddenError, writer, CreateUser(role="admin"))
    world.refuses(ForbiddenError, writer, EditUser(world.mara.user.uid, role="admin"))
    world.do(writer, EditUser(world.mara.user.uid, fullname="Mara"))


@pytest.mark.parametrize("operation", [EditUser(UNKNOWN, fullname="x"), DeleteUser(UNKNOWN)])
def test_unknown_user_is_refused(world, operation):
    world.refuses(NotFoundError, world.admin, operation)


@pytest.mark.parametrize("operation", [EditUser(ZERO_UID, fullname="x"), DeleteUser(ZERO_UID), CreateUser(uid=ZERO_UID),
                                       CreateUser(uid="short")])  # fmt: skip
def test_id_that_is_no_users_is_refused(world, operation):
    world.refuses(ValueRefusedError, world.admin, operation)


def test_id_and_address_of_another_are_taken(world):
    mara = world.mara.user
    world.refuses(TakenError, world.admin, CreateUser(uid=mara.uid))
    world.refuses(TakenError, world.admin, CreateUser(email=mara.email.upper()))
    world.refuses(TakenError, world.admin, EditUser(world.lind.user.uid, email=mara.email))


@pytest.mark.parametrize("value", [
    {"role": "root"}, {"email": "no address"}, {"fullname": "a\nb"}, {"phone": "x" * 256}, {"bandwidth_mb": -1},
    {"bandwidth_mb": MEGABYTES_MAX + 1}, {"max_ports": COUNT_MAX + 1}, {"max_tunnels": -1},
])
def test_bad_value_is_refused(world, value):
    world.refuses(ValueRefusedError, world.admin, CreateUser(**value))
    world.refuses(ValueRefusedError, world.admin, EditUser(world.mara.user.uid, **value))
