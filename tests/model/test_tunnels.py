"""Tunnels: registered with a token, made for oneself, given away and enabled by administrators alone."""

import pytest

from spokes.errors import (
    AdmissionRefusedError,
    ForbiddenError,
    InactiveError,
    LimitError,
    NameRefusedError,
    NotFoundError,
    PolicyError,
    TakenError,
    TokenError,
    ValueRefusedError,
)
from spokes.ids import ZERO_UID
from spokes.model.operation import SYSTEM, UNAUTHENTICATED
from spokes.model.tokens import EditToken
from spokes.model.tunnels import (
    AssignTunnel,
    CreateTunnel,
    DeleteTunnel,
    EditTunnel,
    RegisterTunnel,
    RenewTunnelKey,
    SetTunnelKey,
    SetTunnelState,
)
from spokes.model.users import EditUser
from spokes.store import TunnelState
from tests.model.tenants import DOMAIN, UNKNOWN


def register(world, **members):
    return RegisterTunnel(**{"token": world.token.value, "name": "till", "domain": DOMAIN, **members})


def assign(tunnel, user_uid, **members):
    return AssignTunnel(**{"uid": tunnel.uid, "user_uid": user_uid, "name": "", "domain": DOMAIN, **members})


def test_whoever_has_a_token_registers(world):
    tunnel, key = world.do(UNAUTHENTICATED, register(world, hostname=f"till.{DOMAIN}"))
    assert (tunnel.hostname, tunnel.token_uid, tunnel.user_uid) == (f"till.{DOMAIN}", world.token.uid, ZERO_UID)
    assert world.store.tunnels.find_by_key(key).uid == tunnel.uid


def test_registration_is_held_to_its_token(world):
    world.refuses(TokenError, UNAUTHENTICATED, register(world, token="0" * 64))
    world.do(SYSTEM, EditToken(world.token.uid, "x", active=True, tunnel_count_max=1))
    world.do(UNAUTHENTICATED, register(world))
    world.refuses(LimitError, UNAUTHENTICATED, register(world))
    world.do(SYSTEM, EditToken(world.token.uid, "x", active=True, tunnel_count_max=9, tunnels_per_hour_max=1))
    world.refuses(AdmissionRefusedError, UNAUTHENTICATED, register(world))
    world.do(SYSTEM, EditToken(world.token.uid, "x", active=False))
    world.refuses(InactiveError, UNAUTHENTICATED, register(world))


@pytest.mark.parametrize(("members", "error"), [
    ({"name": "a\nb"}, ValueRefusedError), ({"hostname": "elsewhere.example.org"}, NameRefusedError),
    ({"hostname": f"admin.{DOMAIN}"}, NameRefusedError), ({"domain": "no name"}, NameRefusedError),
])
def test_registration_with_a_bad_value_is_refused(world, members, error):
    world.refuses(error, UNAUTHENTICATED, register(world, **members))


def test_tenant_creates_for_themselves_alone_and_within_their_maximum(world):
    mara = world.mara
    tunnel, auth = world.do(mara.principal, CreateTunnel(name="x", domain=DOMAIN, user_uid=mara.user.uid))
    assert (tunnel.user_uid, auth.tunnel_uid) == (mara.user.uid, tunnel.uid)
    for user_uid in (world.lind.user.uid, ZERO_UID, UNKNOWN):
        world.refuses(NotFoundError, mara.principal, CreateTunnel(name="x", domain=DOMAIN, user_uid=user_uid))
    world.do(SYSTEM, EditUser(mara.user.uid, max_tunnels=2))
    world.refuses(PolicyError, mara.principal, CreateTunnel(name="x", domain=DOMAIN, user_uid=mara.user.uid))


@pytest.mark.parametrize(("members", "error"), [
    ({"name": "x" * 300}, ValueRefusedError), ({"uid": "short"}, ValueRefusedError),
    ({"uid": ZERO_UID}, ValueRefusedError),
    ({"user_uid": "nobody"}, ValueRefusedError), ({"user_uid": UNKNOWN}, NotFoundError),
    ({"hostname": f"api.{DOMAIN}"}, NameRefusedError),
])  # fmt: skip
def test_tunnel_with_a_bad_value_is_not_created(world, members, error):
    world.refuses(error, world.admin, CreateTunnel(**{"name": "x", "domain": DOMAIN, **members}))


def test_id_or_host_name_of_another_is_taken(world):
    tunnel = world.lind.tunnel
    world.refuses(TakenError, world.admin, CreateTunnel(name="x", domain=DOMAIN, uid=tunnel.uid))
    world.refuses(TakenError, world.admin, CreateTunnel(name="x", domain=DOMAIN, hostname=tunnel.hostname))


def test_administrator_gives_a_tunnel_away_and_enables_it(world):
    world.do(world.admin, SetTunnelState(world.mara.tunnel.uid, TunnelState.SHUTDOWN))
    world.do(world.admin, SetTunnelKey(world.mara.tunnel.uid, active=False))
    tunnel, auth = world.do(world.admin, assign(world.mara.tunnel, world.lind.user.uid, name="new"))
    assert (tunnel.user_uid, tunnel.name, tunnel.shutdown, auth.active) == (
        world.lind.user.uid, "new", False, True
    )


def test_tenant_links_their_own_tunnel_alone_and_undoes_no_shutdown(world):
    mara, lind = world.mara, world.lind
    world.refuses(TakenError, mara.principal, assign(lind.tunnel, mara.user.uid))
    world.refuses(NotFoundError, mara.principal, assign(mara.tunnel, lind.user.uid))
    world.refuses(NotFoundError, mara.principal, assign(mara.tunnel, ZERO_UID))
    world.refuses(ForbiddenError, mara.client, assign(mara.tunnel, mara.user.uid))
    assert world.do(mara.principal, assign(mara.tunnel, mara.user.uid, name="desk"))[0].name == "desk"
    world.do(world.admin, SetTunnelState(mara.tunnel.uid, TunnelState.SHUTDOWN))
    world.refuses(ForbiddenError, mara.principal, assign(mara.tunnel, mara.user.uid))
    world.refuses(ForbiddenError, mara.principal, SetTunnelState(mara.tunnel.uid, TunnelState.INIT))


@pytest.mark.parametrize(("members", "error"), [
    ({"name": "a\x00b"}, ValueRefusedError), ({"user_uid": UNKNOWN}, NotFoundError), ({"uid": UNKNOWN}, NotFoundError),
    ({"hostname": f"a.b.c.d.e.{DOMAIN}"}, NameRefusedError),
])
def test_assignment_with_a_bad_value_is_refused(world, members, error):
    world.refuses(error, world.admin, assign(world.mara.tunnel, **{"user_uid": world.mara.user.uid, **members}))


OWN = {
    "edit": lambda uid: EditTunnel(uid, name="desk"),
    "shut down": lambda uid: SetTunnelState(uid, TunnelState.SHUTDOWN),
    "renew the key": RenewTunnelKey,
    "delete": DeleteTunnel,
}


@pytest.mark.parametrize("what", OWN)
def test_own_tunnel_is_changed_and_another_is_not_there(world, what):
    operation = OWN[what]
    for principal in (world.mara.principal, world.admin):
        world.refuses(NotFoundError, principal, operation(UNKNOWN))
    world.refuses(NotFoundError, world.mara.principal, operation(world.lind.tunnel.uid))
    world.do(world.mara.principal, operation(world.mara.tunnel.uid))
    world.do(world.admin, operation(world.lind.tunnel.uid))


def test_client_renames_its_tunnel_and_does_no_more(world):
    assert world.do(world.mara.client, EditTunnel(world.mara.tunnel.uid, name="desk")).name == "desk"
    world.refuses(NotFoundError, world.mara.client, EditTunnel(world.lind.tunnel.uid, name="desk"))
    for what in OWN.keys() - {"edit"}:
        world.refuses(ForbiddenError, world.mara.client, OWN[what](world.mara.tunnel.uid))


def test_renewed_key_is_another_and_the_old_one_is_unknown(world):
    auth = world.do(world.mara.principal, RenewTunnelKey(world.mara.tunnel.uid))
    assert auth.value != world.mara.auth.value
    assert world.store.tunnels.find_by_key(auth.value).uid == world.mara.tunnel.uid
    with pytest.raises(TokenError):
        world.store.tunnels.find_by_key(world.mara.auth.value)


def test_administrator_alone_switches_a_key(world):
    operation = SetTunnelKey(world.mara.tunnel.uid, active=False)
    world.refuses(ForbiddenError, world.mara.principal, operation)
    world.refuses(NotFoundError, world.admin, SetTunnelKey(UNKNOWN, active=False))
    assert world.do(world.admin, operation).active is False


@pytest.mark.parametrize("state", [TunnelState.ONLINE, TunnelState.OFFLINE, TunnelState.DELETED])
def test_state_that_is_seen_is_not_set(world, state):
    world.refuses(ValueRefusedError, world.admin, SetTunnelState(world.mara.tunnel.uid, state))


def test_name_that_is_not_for_people_is_refused(world):
    world.refuses(ValueRefusedError, world.mara.principal, EditTunnel(world.mara.tunnel.uid, name="a\x1b[0m"))


def test_deleted_tunnel_is_not_there(world):
    world.do(world.mara.principal, DeleteTunnel(world.mara.tunnel.uid))
    for operation in (*(make(world.mara.tunnel.uid) for make in OWN.values()), assign(world.mara.tunnel, ZERO_UID)):
        world.refuses(NotFoundError, world.admin, operation)
