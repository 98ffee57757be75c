"""Public ports: listing, allocating, releasing and forwarding them."""

from __future__ import annotations

import msgspec

from spokes.admin.context import Admin, Caller
from spokes.admin.schema.envelope import Answer
from spokes.admin.schema.rules import (
    PortRange,
    PortRangeAnswer,
    PortsAnswer,
    PortTunnel,
    ReleasePortRequest,
    ResetPortsRequest,
    RulesAnswer,
    UpdatePortsRequest,
)
from spokes.admin.scope import own_tunnel, owner_filter
from spokes.errors import AddressInUseError, RuleError, ValueRefusedError
from spokes.model.operation import perform
from spokes.model.ports import AllocatePort, PutPortRules, ReleasePort
from spokes.model.rules import warning_of
from spokes.plural import counted

BUSY_PORTS_MAX = 16                      # ports that other programs may hold before an allocation gives up


def list_all(admin: Admin, caller: Caller, body: None) -> PortsAnswer:
    """Every allocated port with its tunnel."""
    owner = owner_filter(caller)
    if owner is None:
        ports = admin.store.ports.select()
    else:
        ports = admin.store.ports.select([tunnel.uid for tunnel in admin.store.tunnels.select(user_uid=owner)])
    return PortsAnswer(ports=[PortTunnel(port=port.port, tunnel_uid=port.tunnel_uid) for port in ports])


def read_range(admin: Admin, caller: Caller, body: None) -> PortRangeAnswer:
    """Where ports are allocated."""
    return PortRangeAnswer(range=PortRange(begin=admin.tcp_ports.begin, end=admin.tcp_ports.end))


def allocate(admin: Admin, caller: Caller, body: None, *, tunnel_uid: str) -> PortsAnswer:
    """Allocate the lowest free port to a tunnel; one that another program of the host holds is passed over."""
    own_tunnel(admin, caller, tunnel_uid)
    busy: list[int] = []
    try:
        while True:
            port = admin.perform(
                caller, AllocatePort(tunnel_uid, admin.tcp_ports.begin, admin.tcp_ports.end, without=tuple(busy))
            )
            # At a replica the master allocated it; what is taken here is reported, and no reason to ask again.
            if admin.store.forward is not None or not admin.control.is_refused_port(port):
                return PortsAnswer(ports=[PortTunnel(port=port, tunnel_uid=tunnel_uid)])
            busy.append(port)
            # Whatever became of the caller: nobody else would do it.
            perform(admin.store, caller.principal().unconditional(), ReleasePort(tunnel_uid, port))
            if len(busy) == BUSY_PORTS_MAX:
                words = f"ports {busy[0]}-{busy[-1]} are in use by other programs on the server"
                raise AddressInUseError(words, hint="free them, or move the range with tcp_ports")
    finally:
        if busy:
            admin.control.changed()


def release(admin: Admin, caller: Caller, body: ReleasePortRequest, *, tunnel_uid: str) -> Answer:
    """Give a port back, its forwarding with it."""
    own_tunnel(admin, caller, tunnel_uid)
    if body.port == 0:
        raise ValueRefusedError("the port to release is missing")
    admin.perform(caller, ReleasePort(tunnel_uid, body.port))
    admin.control.changed()
    return Answer(message=f"port {body.port} released")


def update(admin: Admin, caller: Caller, body: UpdatePortsRequest, *, tunnel_uid: str) -> RulesAnswer:
    """Add or replace the forwarding of the ports named, each complete; all or none."""
    own_tunnel(admin, caller, tunnel_uid)
    if not all(port.port for port in body.ports):
        raise RuleError("a port rule needs its public port")
    rules = {port.port: msgspec.to_builtins(port) for port in body.ports}
    return _put(admin, caller, tunnel_uid, rules, "updated")


def reset(admin: Admin, caller: Caller, body: ResetPortsRequest, *, tunnel_uid: str) -> RulesAnswer:
    """Clear the forwarding of the ports named; they stay allocated."""
    own_tunnel(admin, caller, tunnel_uid)
    return _put(admin, caller, tunnel_uid, {port: {} for port in body.ports}, "reset")


def _put(admin: Admin, caller: Caller, tunnel_uid: str, rules: dict[int, dict[str, object]], done: str) -> RulesAnswer:
    if rules:
        admin.perform(caller, PutPortRules(tunnel_uid, rules))
        admin.control.changed()
    return RulesAnswer(message=f"{counted(len(rules), 'port')} {done}", warning=warning_of(rules.values()))
