"""Port maps of a tunnel: ports at its client that lead through the server to a service."""

from __future__ import annotations

import msgspec

from spokes.admin.context import Admin, Caller
from spokes.admin.schema.envelope import Answer
from spokes.admin.schema.rules import RemovePortMapsRequest, RulesAnswer, UpdatePortMapsRequest, portmap_of
from spokes.admin.scope import own_tunnel
from spokes.model.portmaps import PutPortMaps, RemovePortMaps
from spokes.plural import counted


def update(admin: Admin, caller: Caller, body: UpdatePortMapsRequest, *, tunnel_uid: str) -> RulesAnswer:
    """Add or replace the maps named by listening port and transport; the others stay. All or none."""
    own_tunnel(admin, caller, tunnel_uid)
    portmaps = [msgspec.to_builtins(portmap_of(rule)) for rule in body.portmaps]
    count = 0
    if portmaps:
        count = len(admin.perform(caller, PutPortMaps(tunnel_uid, portmaps)))
        admin.control.changed()
    return RulesAnswer(
        message=f"{counted(count, 'port map')} updated", warning="kept, but not served in this version"
    )


def remove(admin: Admin, caller: Caller, body: RemovePortMapsRequest, *, tunnel_uid: str) -> Answer:
    """Of both transports; all or none."""
    own_tunnel(admin, caller, tunnel_uid)
    if body.listen_ports:
        admin.perform(caller, RemovePortMaps(tunnel_uid, body.listen_ports))
        admin.control.changed()
    return Answer()
