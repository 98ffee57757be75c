"""What a user may change in a tunnel, the same whether a client runs or not.

Owns: the meaning of each operation. The running client performs them through its local API, with its own session;
without one the `spoke` command performs them on the file, with a short control session to ask the server.
Fails: NotFoundError, RuleError, or what the server refused; the file is then as it was before.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import msgspec

from spokes.client.config_edit import Editable
from spokes.client.rule_limits import check_rule_count
from spokes.client.rule_parsing import (
    Json,
    Rule,
    domain_key,
    parse_port,
    parse_site,
    port_key,
    site_key,
)
from spokes.client.webroots import usable_web_root
from spokes.errors import ConfigError, NameRefusedError, NotFoundError, RemoteError, SpokesError
from spokes.ids import canonical_host, is_reserved
from spokes.wire.messages import Accepted, Fault, PortArgs, TunnelEditArgs
from spokes.wire.rules import UNIX_PREFIX, Port, Site, check_destination, check_upstream

Kind = TypeVar("Kind")
Ask = Callable[[str, dict[str, Any]], Awaitable[dict[str, Any]]]  # a request to the server
Apply = Callable[[], Awaitable[Accepted | None]]  # serve the changed rules; None = nobody serves now
Operation = Callable[["Operations", Json], Awaitable[Json]]


NOT_CHECKED = "notChecked"  # member of a result: what only the server can say, which was not asked
UNCHECKED_NAME = "whether the name is free; the server says so when the client is on-line, and `spoke info` shows it"
NOT_SAVED = "notSaved"  # member of a result: why what was changed is lost when the client ends


async def apply_nowhere() -> None:
    """No client runs: the file is all there is, the next start serves it."""


class Operations:
    def __init__(self, file: Editable, *, ask: Ask, apply: Apply) -> None:
        self._file = file
        self._ask = ask
        self._apply = apply

    async def perform(self, name: str, args: Json) -> Json:
        operation = OPERATIONS.get(name)
        if operation is None:
            raise NotFoundError(f"no operation {name!r}")
        result = await operation(self, args)
        if name in CHANGES:
            await self._file.settled()
        return {**result, NOT_SAVED: self._file.unsaved} if self._file.unsaved and name in CHANGES else result

    async def http_add(self, args: Json) -> Json:
        site = parse_site(args)
        if site.web_root:
            site = msgspec.structs.replace(site, web_root=usable_web_root(site.web_root))
        check_upstream(site)
        self._require_free(site)
        before = self._change_sites(lambda sites: _put(sites, site, site_key))
        accepted = await self._serve_or_restore(before, lambda accepted: site_fault(accepted, site))
        return {"domain": site.domain} | ({} if accepted else {NOT_CHECKED: UNCHECKED_NAME})

    async def http_rm(self, args: Json) -> Json:
        wanted = domain_key(str(args.get("domain") or ""))

        def without(sites: list[Site]) -> list[Site]:
            left = [site for site in sites if site_key(site) != wanted]
            if len(left) == len(sites):
                raise NotFoundError(f"no rule for {wanted}", hint="see: spoke tunnel http ls")
            return left

        self._change_sites(without)
        await self._apply()
        return {"domain": wanted}

    async def tcp_allocate(self, args: Json) -> Json:
        self._file.require_writable()
        port = _read(await self._ask("tcp.allocate", {}), PortArgs).port
        new = Port(port=port)
        with self._file.edit() as config:
            config.set_ports(_put(config.ports(), new, port_key))
            # The server has it just so: a forwarding typed next is then the later change (rule_merge.py).
            config.mark_synced(config.synced_sites(), _put(config.synced_ports(), new, port_key))
        await self._apply_done()
        return {"port": port}

    async def tcp_forward(self, args: Json) -> Json:
        check_destination(str(args.get("destination") or "localhost"))
        number = int(args.get("port") or 0) or self._free_port() or (await self.tcp_allocate({}))["port"]
        port = parse_port({**args, "port": number})
        if port.destination.startswith(UNIX_PREFIX) and not port.dst_port:
            port = msgspec.structs.replace(port, dst_port=number)  # a server wants a number beside a destination

        def forwarded(ports: list[Port]) -> list[Port]:
            if not _find(ports, number):
                raise NotFoundError(f"port {number} is not allocated to this tunnel", hint="see: spoke tunnel tcp ls")
            return _put(ports, port, port_key)

        before = self._change_ports(forwarded)
        await self._serve_or_restore(before, lambda accepted: port_fault(accepted, number))
        return {"port": number}

    async def tcp_release(self, args: Json) -> Json:
        number = _read(args, PortArgs).port
        self._file.require_writable()
        await self._ask("tcp.release", {"port": number})
        self._change_ports(lambda ports: [port for port in ports if port.port != number])
        await self._apply_done()
        return {"port": number}

    async def tunnel_edit(self, args: Json) -> Json:
        name = _read(args, TunnelEditArgs).name
        self._file.require_writable()
        await self._ask("tunnel.edit", {"name": name})
        with self._file.edit() as config:
            config.document["name"] = name
        return {"name": name}

    async def tunnel_info(self, args: Json) -> Json:
        return await self._ask("tunnel.info", {})

    # the file

    def _change_sites(self, change: Callable[[list[Site]], list[Site]]) -> Json:
        """Change the file's sites; what to give to `_restore` to undo it."""
        with self._file.edit() as config:
            before = {"https": config.document.get("https")}
            sites = config.sites()
            changed = change(sites)
            check_rule_count(changed, sites)
            config.set_sites(changed)
        return before

    def _change_ports(self, change: Callable[[list[Port]], list[Port]]) -> Json:
        with self._file.edit() as config:
            before = {"ports": config.document.get("ports")}
            ports = config.ports()
            changed = change(ports)
            check_rule_count(changed, ports)
            config.set_ports(changed)
        return before

    def _require_free(self, site: Site) -> None:
        """What can be said of a name without asking the server: those that it keeps for itself."""
        config = self._file.read()
        _, _, parent = config.hostname.partition(".")
        domains = {parent, config.server_address()[0] if config.server_host else ""} - {""}
        name = canonical_host(site.domain)
        if any(is_reserved(name, domain_key(domain)) for domain in domains):
            raise NameRefusedError(
                f"{name} is reserved: the server keeps it for itself", hint="choose another name"
            )

    async def _serve_or_restore(self, before: Json, fault_of: Callable[[Accepted], Fault | None]) -> Accepted | None:
        """What the server says of it; None while nobody can ask."""
        accepted = await self._apply()
        fault = fault_of(accepted) if accepted is not None else None
        if fault is None:
            return accepted
        with self._file.edit() as config:
            config.document.update(before)
        await self._apply()
        raise RemoteError(fault.message, code=fault.code)

    async def _apply_done(self) -> None:
        """Serve what the server has done already: where it cannot take the whole list now it does later, and this is no
        failure of what was asked for."""
        try:
            await self._apply()
        except SpokesError as error:
            if not error.retryable:
                raise

    def _free_port(self) -> int:
        """A port that was allocated and leads nowhere yet; 0 for none."""
        ports = self._file.read().ports()
        return next((port.port for port in ports if not port.destination and not port.dst_port), 0)


OPERATIONS: Mapping[str, Operation] = {
    "http.add": Operations.http_add,
    "http.rm": Operations.http_rm,
    "tcp.allocate": Operations.tcp_allocate,
    "tcp.forward": Operations.tcp_forward,
    "tcp.release": Operations.tcp_release,
    "tunnel.edit": Operations.tunnel_edit,
    "tunnel.info": Operations.tunnel_info,
}
CHANGES = frozenset(OPERATIONS) - {"tunnel.info"}


def _put(rules: list[Rule], rule: Rule, key_of: Callable[[Rule], Any]) -> list[Rule]:
    """The rules with this one added, or put in the place of the one with the same key."""
    key = key_of(rule)
    placed: list[Rule] = [rule if key_of(old) == key else old for old in rules]
    return placed if rule in placed else [*placed, rule]


def _find(ports: list[Port], number: int) -> bool:
    return any(port.port == number for port in ports)


def _read(value: Json, kind: type[Kind]) -> Kind:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise ConfigError(f"wrong arguments: {error}") from None


def site_fault(accepted: Accepted, site: Site) -> Fault | None:
    key = site_key(site)
    return next((result.error for result in accepted.https if domain_key(result.domain) == key), None)


def port_fault(accepted: Accepted, number: int) -> Fault | None:
    return next((result.error for result in accepted.ports if result.port == number), None)
