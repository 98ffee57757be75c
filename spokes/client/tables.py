"""Tables as text: columns parted by ` | `, so that people and scripts (`cut -d'|' -f2`) read them alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec

from spokes.client.rule_parsing import domain_key, http_place, place_text, site_key, tcp_place
from spokes.log import escape
from spokes.wire.messages import Accepted, Fault
from spokes.wire.rules import Port, Site

SITE_COLUMNS = ("Domain", "Destination", "HTTP", "TLS", "Secure", "State")
PORT_COLUMNS = ("Protocol", "Port", "Destination", "State")
NODE_COLUMNS = ("Node", "Role", "State", "Round trip")
RESERVED = "reserved"  # state of a port that leads nowhere: it is this tunnel's, and nobody is served
Failing = Mapping[tuple[str, int], str]  # domain or port -> words, of services that failed last
_NONE: Failing = MappingProxyType({})


def draw_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    shown = [[escape(cell) for cell in row] for row in (columns, *rows)]
    widths = [max(len(row[at]) for row in shown) for at in range(len(columns))]
    lines = [" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in shown]
    return "\n".join([lines[0], "-+-".join("-" * width for width in widths), *lines[1:]])


def site_rows(
    sites: Sequence[Site], accepted: Accepted | None = None, failing: Failing = _NONE, delayed: Fault | None = None
) -> list[list[str]]:
    """`accepted` None: nobody serves, the state stays blank. `delayed`: why the server has not taken the rules yet."""
    faults = {domain_key(result.domain): result.error for result in accepted.https} if accepted else {}
    return [
        [
            site.domain,
            site.web_root or site.destination or site.upstream_url or (place_text(http_place(site)) and "localhost"),
            str(site.port or "-"),
            str(site.tls or "-"),
            "yes" if site.secure else "no",
            _state(faults, site_key(site), failing.get((site_key(site), 0)), delayed) if accepted else "",
        ]
        for site in sites
    ]


def port_rows(
    ports: Sequence[Port], accepted: Accepted | None = None, failing: Failing = _NONE, delayed: Fault | None = None
) -> list[list[str]]:
    faults = {result.port: result.error for result in accepted.ports} if accepted else {}
    return [
        [
            "TCP",
            str(port.port),
            (place := place_text(tcp_place(port))) or "-",
            _state(faults, port.port, failing.get(("", port.port)), delayed, "running" if place else RESERVED)
            if accepted
            else "",
        ]
        for port in ports
    ]


def node_rows(nodes: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Of a running client's status, or of `spoke info`."""
    return [
        [
            str(node["hostname"]),
            str(node["role"] or "-"),
            str(node["state"]),
            f"{node['rttMs']:.1f} ms" if node["rttMs"] is not None else "-",
        ]
        for node in nodes
    ]


def node_table(nodes: Sequence[Mapping[str, Any]]) -> str:
    return draw_table(NODE_COLUMNS, node_rows(nodes))


def site_table(
    sites: Sequence[Site], accepted: Accepted | None = None, failing: Failing = _NONE, delayed: Fault | None = None
) -> str:
    return _without_blank_state(SITE_COLUMNS, site_rows(sites, accepted, failing, delayed))


def port_table(
    ports: Sequence[Port], accepted: Accepted | None = None, failing: Failing = _NONE, delayed: Fault | None = None
) -> str:
    return _without_blank_state(PORT_COLUMNS, port_rows(ports, accepted, failing, delayed))


def failing_of(status: Mapping[str, Any]) -> Failing:
    """Of a running client's status, which an older one may give without it."""
    return {(str(one["domain"]), int(one["port"])): str(one["message"]) for one in status.get("failing", ())}


def accepted_of(status: Mapping[str, Any]) -> Accepted | None:
    """What the server has in force, of a running client's status; None where nobody serves."""
    if status.get("state") == "online":
        return msgspec.convert(status["accepted"], Accepted)
    return Accepted() if status.get("delayed") else None  # on-line but for the rules, all of which wait


def delayed_of(status: Mapping[str, Any]) -> Fault | None:
    """Of a running client's status, which an older one gives without it."""
    fault = status.get("delayed")
    return msgspec.convert(fault, Fault) if fault else None


def delayed_text(fault: Fault) -> str:
    return f"kept here; the server cannot store them now: {escape(fault.message)} [{fault.code}]"


def datagrams_text(figures: Mapping[str, int]) -> str:
    """Of UDP services, as the client's sockets saw them: `out` went to a service, `in` came from one."""
    return f"{figures['out']} to services, {figures['in']} from them, {figures['dropped']} dropped"


def _without_blank_state(columns: Sequence[str], rows: list[list[str]]) -> str:
    if any(row[-1] for row in rows):
        return draw_table(columns, rows)
    return draw_table(columns[:-1], [row[:-1] for row in rows])


def _state(
    faults: Mapping[Any, Fault | None],
    key: str | int,
    failing: str | None,
    delayed: Fault | None,
    well: str = "running",
) -> str:
    if key not in faults:
        return f"waiting: {delayed.message} [{delayed.code}]" if delayed else "waiting"
    fault = faults[key]
    return f"{fault.message} [{fault.code}]" if fault else failing or well
