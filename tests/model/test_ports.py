"""Public ports: allocated, released and forwarded by who owns the tunnel, and by its client."""

import pytest

from spokes.errors import ForbiddenError, LimitError, NotFoundError, PolicyError
from spokes.model.operation import SYSTEM
from spokes.model.ports import AllocatePort, PutPortRules, ReleasePort
from spokes.model.users import EditUser
from tests.model.tenants import UNKNOWN


@pytest.mark.parametrize("who", ["principal", "client"])
def test_owner_and_client_allocate_and_release(world, who):
    principal, tunnel = getattr(world.mara, who), world.mara.tunnel
    port = world.do(principal, AllocatePort(tunnel.uid, 22000, 22999, without=(22002,)))
    assert port == 22003                 # 22000 and 22001 are the tenants'
    world.do(principal, ReleasePort(tunnel.uid, port))
    assert [one.port for one in world.store.ports.select(tunnel.uid)] == [world.mara.port]


@pytest.mark.parametrize("operation", [
    lambda one: AllocatePort(one.tunnel.uid, 22000, 22999), lambda one: ReleasePort(one.tunnel.uid, one.port),
    lambda one: PutPortRules(one.tunnel.uid, {one.port: {"dstPort": 22}}),
])
def test_tunnel_of_another_is_not_there(world, operation):
    world.refuses(NotFoundError, world.mara.principal, operation(world.lind))
    assert world.store.ports.select(world.lind.tunnel.uid)[0].rule == {"port": world.lind.port}


def test_client_of_another_gets_nothing(world):
    world.refuses(NotFoundError, world.mara.client, AllocatePort(world.lind.tunnel.uid, 22000, 22999))
    world.refuses(NotFoundError, world.mara.client, ReleasePort(world.lind.tunnel.uid, world.lind.port))
    world.refuses(ForbiddenError, world.lind.client, PutPortRules(world.lind.tunnel.uid, {world.lind.port: {}}))


def test_owner_forwards_ports_of_their_own(world):
    (port,) = world.do(world.mara.principal, PutPortRules(world.mara.tunnel.uid, {world.mara.port: {"dstPort": 22}}))
    assert port.rule == {"port": world.mara.port, "dstPort": 22}
    world.refuses(
        NotFoundError, world.mara.principal, PutPortRules(world.mara.tunnel.uid, {world.lind.port: {"dstPort": 22}})
    )


def test_unknown_tunnel_and_port_are_refused(world):
    world.refuses(NotFoundError, world.admin, AllocatePort(UNKNOWN, 22000, 22999))
    world.refuses(NotFoundError, world.mara.principal, ReleasePort(world.mara.tunnel.uid, 22999))


def test_limits_are_held(world):
    allocate = AllocatePort(world.mara.tunnel.uid, 22000, 22001)
    world.refuses(LimitError, world.mara.principal, allocate)              # the range is used up
    world.refuses(LimitError, world.mara.principal, AllocatePort(world.mara.tunnel.uid, 9, 1))
    world.do(SYSTEM, EditUser(world.mara.user.uid, check_ports=True, max_ports=1))
    world.refuses(PolicyError, world.mara.principal, AllocatePort(world.mara.tunnel.uid, 22000, 22999))
