"""Tunnels of users: made or handed over by an administrator, stopped, listed."""

from __future__ import annotations

from spokes import clock
from spokes.admin.context import Admin, Caller
from spokes.admin.schema.envelope import Answer
from spokes.admin.schema.tunnels import (
    AuthTokenAnswer,
    CreateTunnelRequest,
    DetailsQuery,
    EditTunnelKeyRequest,
    NewTunnelAnswer,
    TunnelRequest,
    TunnelsAnswer,
)
from spokes.admin.scope import own_tunnel
from spokes.admin.tunnel_objects import auth_token_object, tunnel_object, tunnel_objects
from spokes.errors import ControlError, NoServerError, NotFoundError
from spokes.ids import ZERO_UID
from spokes.model.tunnels import AssignTunnel, CreateTunnel, DeleteTunnel, RenewTunnelKey, SetTunnelKey
from spokes.store import PresenceUpdate, TunnelState


def create(admin: Admin, caller: Caller, body: CreateTunnelRequest) -> NewTunnelAnswer:
    """A new tunnel, with the id that is asked for; one that exists is linked to the user and enabled."""
    caller.check_sees(body.user_uid, "user")
    hostname = body.hostname or None
    if body.tunnel_uid != ZERO_UID and _exists(admin, caller, body.tunnel_uid):
        tunnel, token = admin.perform(caller, AssignTunnel(
            uid=body.tunnel_uid, user_uid=body.user_uid, name=body.name, hostname=hostname, domain=admin.domain
        ))
    else:
        uid = body.tunnel_uid if body.tunnel_uid != ZERO_UID else None
        tunnel, token = admin.perform(caller, CreateTunnel(
            name=body.name, hostname=hostname, domain=admin.domain, user_uid=body.user_uid, uid=uid
        ))
    admin.control.changed()
    return NewTunnelAnswer(tunnel=tunnel_object(admin, tunnel), token=auth_token_object(tunnel, token))


def stop(admin: Admin, caller: Caller, body: None, *, tunnel_uid: str) -> Answer:
    """End its session; the client is told to stay away, and its token stays good."""
    tunnel = own_tunnel(admin, caller, tunnel_uid)
    try:
        admin.control.call("stop_tunnel", id=tunnel_uid)
    except NoServerError:
        return Answer(message="the tunnel is not on-line")
    except ControlError as error:
        if error.code != NotFoundError.code:
            raise
        return Answer(message="the tunnel is not on-line")
    # The server writes it too, in some seconds; whoever asks for the tunnel next shall see it stopped.
    admin.store.presence.write(
        [PresenceUpdate(tunnel_uid=tunnel_uid, state=TunnelState.OFFLINE, last_active=clock.wall_s())]
    )
    with admin.store.audit.acting(caller.principal()):     # it is done, whatever became of the caller
        admin.store.audit.note("tunnel.stop", "tunnel", tunnel_uid, {"name": tunnel.name})
    return Answer(message="tunnel stopped")


def delete(admin: Admin, caller: Caller, body: TunnelRequest) -> Answer:
    """Delete a tunnel for good, with its rules and ports; its host name goes to nobody else for 30 days."""
    tunnel = own_tunnel(admin, caller, body.tunnel_uid)
    admin.perform(caller, DeleteTunnel(tunnel.uid))
    admin.control.changed()
    return Answer(message="tunnel deleted")


def edit_key(admin: Admin, caller: Caller, body: EditTunnelKeyRequest) -> AuthTokenAnswer:
    """Switch the key that a tunnel's client logs in with on or off; off ends its session."""
    tunnel = own_tunnel(admin, caller, body.tunnel_uid)
    token = admin.perform(caller, SetTunnelKey(tunnel.uid, active=body.active))
    admin.control.changed()
    return AuthTokenAnswer(message="key switched on" if body.active else "key switched off",
                           token=auth_token_object(tunnel, token))  # fmt: skip


def renew_key(admin: Admin, caller: Caller, body: TunnelRequest) -> AuthTokenAnswer:
    """Give a tunnel another key; the session of the old one ends."""
    tunnel = own_tunnel(admin, caller, body.tunnel_uid)
    token = admin.perform(caller, RenewTunnelKey(tunnel.uid))
    admin.control.changed()
    return AuthTokenAnswer(message="key renewed", token=auth_token_object(tunnel, token))


def list_of_user(
    admin: Admin, caller: Caller, body: None, *, user_uid: str, query: DetailsQuery
) -> TunnelsAnswer:
    """The tunnels of a user."""
    caller.check_sees(user_uid, "user")
    if user_uid != ZERO_UID:             # the system's are no user's, and always there
        admin.store.users.get(user_uid)
    tunnels = admin.store.tunnels.of_user(user_uid)
    return TunnelsAnswer(tunnels=tunnel_objects(admin, tunnels, details=query.details == "true"))


def _exists(admin: Admin, caller: Caller, tunnel_uid: str) -> bool:
    """Somebody else's is as unknown to a basic caller as in every other call: an id in use is refused by the store."""
    try:
        return caller.may_see(admin.store.tunnels.get(tunnel_uid).user_uid)
    except NotFoundError:
        return False
