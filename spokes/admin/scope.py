"""Visibility: which objects exist for a caller, and the block in which a caller changes what is no configuration.

Administrators see everything, others what is theirs. A handler checks that as soon as it can, to refuse early; an
operation checks rights and owner again in its transaction, because both may have changed meanwhile.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

from spokes.admin.context import Admin, Caller
from spokes.errors import NotFoundError
from spokes.ids import ZERO_UID
from spokes.model.authority import standing
from spokes.store import Tunnel, TunnelState
from spokes.store.principal import Check

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
    """For what is no operation of the configuration: what the store changes in this block leaves records that name the
    caller, and happens only while the caller may call and all `checks` hold.
    """
    return admin.store.audit.acting(caller.principal(), *standing(caller.principal()), *checks)
