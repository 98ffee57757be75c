"""What of the tunnels exists for a caller: everything for administrators, their own for others."""

from __future__ import annotations

from spokes.admin.context import Admin, Caller
from spokes.errors import NotFoundError
from spokes.ids import ZERO_UID
from spokes.store import Tunnel, TunnelState

_NOBODY = "nobody"                       # no user's id: a caller who owns nothing sees nothing


def owner_filter(caller: Caller) -> str | None:
    """For the store's lists: None is everybody's."""
    if caller.is_admin:
        return None
    return caller.user_uid if caller.user_uid != ZERO_UID else _NOBODY


def own_tunnel(admin: Admin, caller: Caller, tunnel_uid: str) -> Tunnel:
    """NotFoundError for one that is unknown, deleted, or somebody else's."""
    tunnel = admin.store.get_tunnel(tunnel_uid)
    caller.check_sees(tunnel.user_uid, "tunnel")
    if tunnel.state == TunnelState.DELETED:
        raise NotFoundError("this tunnel was deleted")
    return tunnel
