"""Registration tokens: administrators alone make them."""

import pytest

from spokes.errors import ForbiddenError, NotFoundError, ValueRefusedError
from spokes.model.tokens import COUNT_MAX, CreateToken, DeleteToken, EditToken
from tests.model.tenants import UNKNOWN


def test_administrator_creates_edits_and_deletes(world):
    token = world.do(world.admin, CreateToken("tills", tunnel_count_max=3))
    edited = world.do(world.admin, EditToken(token.uid, "desks", active=False, tunnels_per_hour_max=2))
    assert (edited.description, edited.active, edited.tunnel_count_max, edited.tunnels_per_hour_max) == (
        "desks", False, 3, 2
    )
    world.do(world.admin, DeleteToken(token.uid))
    assert [one.uid for one in world.store.tokens.select()] == [world.token.uid]


@pytest.mark.parametrize("operation", [
    lambda w: CreateToken("x"), lambda w: EditToken(w.token.uid, "x", active=True), lambda w: DeleteToken(w.token.uid),
])
def test_tenant_is_refused(world, operation):
    world.refuses(ForbiddenError, world.mara.principal, operation(world))
    world.refuses(ForbiddenError, world.mara.client, operation(world))


@pytest.mark.parametrize("operation", [EditToken(UNKNOWN, "x", active=True), DeleteToken(UNKNOWN)])
def test_unknown_token_is_refused(world, operation):
    world.refuses(NotFoundError, world.admin, operation)


@pytest.mark.parametrize("value", [
    {"description": "a\nb"}, {"description": "x" * 256}, {"tunnel_count_max": -1}, {"tunnel_count_max": COUNT_MAX + 1},
    {"tunnels_per_hour_max": -1},
])
def test_bad_value_is_refused(world, value):
    world.refuses(ValueRefusedError, world.admin, CreateToken(**{"description": "x", **value}))
    edited = {"description": "x", "active": True, **value}
    world.refuses(ValueRefusedError, world.admin, EditToken(world.token.uid, **edited))
