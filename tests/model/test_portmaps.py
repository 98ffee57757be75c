"""Port maps: put and removed by who owns the tunnel."""

import pytest

from spokes.errors import ForbiddenError, NotFoundError, ValueRefusedError
from spokes.model.portmaps import PutPortMaps, RemovePortMaps
from tests.model.tenants import UNKNOWN

RULE = {"listenPort": 53, "dstPort": 54, "transport": "udp"}


def test_owner_puts_and_removes(world):
    tunnel = world.mara.tunnel
    (portmap,) = world.do(world.mara.principal, PutPortMaps(tunnel.uid, [RULE]))
    assert (portmap.listen_port, portmap.transport, portmap.rule) == (53, "udp", RULE)
    world.do(world.mara.principal, RemovePortMaps(tunnel.uid, [53]))
    assert [one.listen_port for one in world.store.portmaps.select(tunnel.uid)] == [5432]


@pytest.mark.parametrize("operation", [
    lambda tunnel: PutPortMaps(tunnel.uid, [RULE]), lambda tunnel: RemovePortMaps(tunnel.uid, [5432]),
])
def test_tunnel_of_another_is_not_there(world, operation):
    world.refuses(NotFoundError, world.mara.principal, operation(world.lind.tunnel))
    world.refuses(ForbiddenError, world.lind.client, operation(world.lind.tunnel))


def test_unknown_tunnel_and_map_are_refused(world):
    world.refuses(NotFoundError, world.admin, PutPortMaps(UNKNOWN, [RULE]))
    world.refuses(NotFoundError, world.mara.principal, RemovePortMaps(world.mara.tunnel.uid, [5432, 54]))


@pytest.mark.parametrize("members", [
    {"listenPort": 0}, {"listenPort": 65536}, {"listenPort": True}, {"listenPort": "53"}, {"transport": "sctp"},
    {"transport": None},
])
def test_bad_key_is_refused(world, members):
    world.refuses(ValueRefusedError, world.admin, PutPortMaps(world.mara.tunnel.uid, [RULE | members]))
