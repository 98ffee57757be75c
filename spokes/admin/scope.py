"""What exists for a caller, and the blocks in which they change something.

Everything exists for administrators, their own for others. A handler looks at that as soon as it can, to refuse before
it works; and changes something inside changing() or changing_tunnel(), where rights and owner are looked at once more
in each transaction: between the two anything may have happened.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

from spokes.admin.context import Admin, Caller
from spokes.errors import NotFoundError
from spokes.ids import ZERO_UID
from spokes.store import Tunnel, TunnelState
from spokes.store.actors import Check
from spokes.store.authority import OwnerOf, owner_of_tunnel
from spokes.store.base import View

_NOBODY = "nobody"                       # no user's id: a caller who owns nothing sees nothing


def owner_filter(caller: Caller) -> str | None:
    """For the store's lists: None is everybody's."""
    if caller.is_admin:
        return None
    return caller.user_uid if caller.user_uid != ZERO_UID else _NOBODY


def own_tunnel(admin: Admin, caller: Caller, tunnel_uid: str) -> Tunnel:
    """NotFoundError for one that is unknown, deleted, or somebody else's."""
    tunnel = admin.store.tunnels.get(tunnel_uid)
    caller.check_sees(tunnel.user_uid, "tunnel")
    if tunnel.state == TunnelState.DELETED:
        raise NotFoundError("this tunnel was deleted")
    return tunnel


def changing(admin: Admin, caller: Caller, *checks: Check) -> AbstractContextManager[None]:
    """What the store changes in this block leaves events that name the caller, and happens only while the caller may
    call and all `checks` hold.
    """
    return admin.store.audit.acting(caller.actor(), *caller.checks, *checks, user_uid=caller.user_uid)


def changing_tunnel(admin: Admin, caller: Caller, tunnel_uid: str) -> AbstractContextManager[None]:
    """As changing(), while the tunnel exists and is the caller's."""
    return changing(admin, caller, is_seen(caller, owner_of_tunnel, tunnel_uid, "tunnel"))


def is_seen(caller: Caller, owner_of: OwnerOf, uid: str, what: str) -> Check:
    """The object with this id exists for the caller."""
    def check(tx: View) -> None:
        caller.check_sees(owner_of(tx, uid), what)

    return check
