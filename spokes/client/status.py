"""What the running client shows: plain lines in a pipe, a live block on a terminal, one object for programs."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any, TextIO, cast

import msgspec
from rich.console import Console as RichConsole
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

import spokes
from spokes.client.app import App
from spokes.client.node import Node
from spokes.client.service_health import HealthChange
from spokes.client.tables import (
    NODE_COLUMNS,
    PORT_COLUMNS,
    SITE_COLUMNS,
    datagrams_text,
    node_rows,
    port_rows,
    port_table,
    site_rows,
    site_table,
)
from spokes.errors import SpokesError
from spokes.log import escape
from spokes.outlet import OutletFile, outlet_of
from spokes.wire.messages import Accepted

REFRESH_INTERVAL_S = 0.5
CHANGES_SHOWN_MAX = 20  # of services that fail or answer again, in one second
_STATE_STYLES = {"online": "bold green", "waiting": "bold red"}


def status_document(app: App) -> dict[str, Any]:
    """The client's state as one JSON object; nothing secret in it."""
    bytes_from_visitors, bytes_to_visitors = app.traffic_bytes()
    stats = app.stats()
    return {
        "pid": os.getpid(),
        "version": spokes.__version__,
        "state": app.state,
        "server": str(app.endpoint),
        "tunnel": app.ready.tunnel if app.ready else "",
        "hostname": app.ready.hostname if app.ready else "",
        "url": app.public_url() if app.ready else "",
        "online_since": app.online_since,
        "rtt_ms": round(app.rtt_ms(), 3),
        "ha": app.nodes.mode,
        "cluster": app.is_cluster,
        "nodes": node_figures(app),
        "links": app.link_count(),
        "connections": app.streams_open(),
        "requests": stats.get("requests_total", 0),
        "datagrams": datagram_figures(stats),
        "loops": stats.get("loops_total", 0),
        "bytes_from_visitors": bytes_from_visitors,
        "bytes_to_visitors": bytes_to_visitors,
        "services": msgspec.to_builtins(app.rules.services),
        "accepted": msgspec.to_builtins(app.rules.accepted),
        "delayed": msgspec.to_builtins(app.delayed),
        "failing": [
            {
                "domain": service.domain,
                "port": service.port,
                "upstream": fault.upstream,
                "code": fault.code,
                "message": fault.words(),
                "at": fault.at,
                "count": fault.count,
            }
            for service, fault in sorted(app.service_health.faults.items())
        ],
        "tasks": app.supervisor.figures(),
        "errors": [{"at": trouble.at, "message": trouble.line} for trouble in app.troubles],
    }


def node_figures(app: App) -> list[dict[str, Any]]:
    """Every node with its state, and its round-trip time where it has a session."""
    return [
        {
            "hostname": str(node.address),
            "role": node.role,
            "state": f"duplicate of {node.duplicate_of}" if node.duplicate_of else node.state,
            "rttMs": round(node.rtt_ms(), 3) if node.is_online else None,
        }
        for node in app.nodes
    ]


def failing(app: App) -> dict[tuple[str, int], str]:
    """Services that failed last, in words."""
    return {(service.domain, service.port): fault.words() for service, fault in app.service_health.faults.items()}


def datagram_figures(stats: Mapping[str, int]) -> dict[str, int]:
    return {name: stats.get(f"datagrams_{name}", 0) for name in ("in", "out", "dropped")}


class PlainConsole:
    """One line an event."""

    def __init__(self, out: TextIO) -> None:
        self._out = outlet_of(out)
        self._shown_tables = self._shown_address = ""
        self._said_connecting = False

    def connecting(self) -> None:
        if not self._said_connecting:
            self._said_connecting = True
            self._say("Connecting...")

    async def online(self, app: App) -> None:
        self._said_connecting = False
        self._say(f"Connected to {app.endpoint} as {app.ready.hostname if app.ready else ''}")
        self._say_address(app)
        self._show_tables(self._tables(app))

    def _say_address(self, app: App) -> None:
        self._shown_address = app.public_url()
        self._say(f"Address: {escape(self._shown_address)}")

    def changed(self, app: App) -> None:
        if app.public_url() != self._shown_address:
            self._say_address(app)
        tables = self._tables(app)
        if tables != self._shown_tables:  # what a server confirms once more is no news
            self._show_tables(tables)

    def delayed(self, app: App, error: SpokesError) -> None:
        self._say(escape(error.line()))
        self.changed(app)

    def health_changed(self, changes: Sequence[HealthChange]) -> None:
        for change in changes[:CHANGES_SHOWN_MAX]:
            self._say(escape(change.line()))
        if len(changes) > CHANGES_SHOWN_MAX:
            self._say(f"... and {len(changes) - CHANGES_SHOWN_MAX} services more")

    def _show_tables(self, tables: str) -> None:
        self._shown_tables = tables
        self._say(tables)

    def _tables(self, app: App) -> str:
        sites, ports = app.rules.services.https, app.rules.services.ports
        standing = app.rules.accepted, failing(app), app.delayed
        lines = ["Running HTTP services:", site_table(sites, *standing) if sites else "(none)"]
        if ports:
            lines += ["Running TCP services:", port_table(ports, *standing)]
        return "\n".join(lines)

    def node_changed(self, app: App, node: Node, error: SpokesError | None) -> None:
        if error is None:
            self._say(f"Connected to node {node}")
        else:
            self._say(f"Node {node} lost: {escape(error.line())}")
        self.changed(app)

    def offline(self, error: SpokesError, wait_s: float) -> None:
        self._say(f"Not connected: {escape(error.line())}; next attempt in {wait_s:.1f} s")

    def _say(self, text: str) -> None:
        self._out.write(text + "\n")

    async def run(self, app: App) -> None:
        """Nothing changes by itself."""
        await asyncio.Event().wait()


def terminal_console(stream: TextIO) -> RichConsole:
    """A terminal that is never waited for."""
    return RichConsole(file=cast(TextIO, OutletFile(outlet_of(stream), stream)))


class LiveConsole:
    """A block at the end of the terminal that is drawn again twice a second, while the terminal takes it."""

    def __init__(self, terminal: RichConsole) -> None:
        self._file = terminal.file
        self._live = Live(console=terminal, auto_refresh=False, transient=False)
        self._next_attempt_at = 0.0
        self._said_connecting = False

    def connecting(self) -> None:
        if not self._said_connecting:  # later attempts show in the block's state
            self._said_connecting = True
            self._live.console.print("Connecting...", highlight=False)

    async def online(self, app: App) -> None:
        self._next_attempt_at = 0.0

    def changed(self, app: App) -> None:
        """The block shows it by itself."""

    def delayed(self, app: App, error: SpokesError) -> None:
        """So does it of what the server cannot store now, by its troubles."""

    def health_changed(self, changes: Sequence[HealthChange]) -> None:
        """So does it of services that fail."""

    def node_changed(self, app: App, node: Node, error: SpokesError | None) -> None:
        """And of nodes, by its table of them."""

    def offline(self, error: SpokesError, wait_s: float) -> None:
        self._next_attempt_at = time.monotonic() + wait_s

    async def run(self, app: App) -> None:
        with self._live:
            try:
                while True:
                    if self._is_free():
                        self._live.update(self._block(app), refresh=True)
                    await asyncio.sleep(REFRESH_INTERVAL_S)
            finally:
                self._live.update(self._block(app), refresh=True)

    def _is_free(self) -> bool:
        """The last block is out: where a terminal stands still the next one would only pile up behind it."""
        return not isinstance(self._file, OutletFile) or self._file.outlet.idle

    def _block(self, app: App) -> RenderableType:
        parts: list[RenderableType] = [self._facts(app)]
        if app.is_cluster:
            parts.append(_rich_table(NODE_COLUMNS, node_rows(node_figures(app))))
        parts.append(Text("Running HTTP services:" if app.state == "online" else "HTTP services:"))
        accepted = app.rules.accepted if app.state == "online" else Accepted()
        services = app.rules.services
        parts.append(_rich_table(SITE_COLUMNS, site_rows(services.https, accepted, failing(app), app.delayed)))
        if services.ports:
            parts.append(Text("TCP services:"))
            parts.append(_rich_table(PORT_COLUMNS, port_rows(services.ports, accepted, failing(app), app.delayed)))
        for trouble in app.troubles:
            at = time.strftime("%H:%M:%S", time.localtime(trouble.at))
            parts.append(Text(f"{at} {escape(trouble.line)}", style="yellow"))
        return Group(*parts)

    def _facts(self, app: App) -> Table:
        state = app.state
        if self._next_attempt_at and state == "waiting":
            state = f"waiting, next attempt in {max(0.0, self._next_attempt_at - time.monotonic()):.0f} s"
        rtt_ms, stats = app.rtt_ms(), app.stats()
        facts = Table.grid(padding=(0, 2))
        for name, value in (
            ("State", Text(state, style=_STATE_STYLES.get(app.state, "bold"))),
            ("Hostname", app.ready.hostname if app.ready else "-"),
            ("Address", app.public_url() if app.ready else "-"),
            ("Server", str(app.endpoint)),
            ("Round trip", f"{rtt_ms:.1f} ms" if rtt_ms else "-"),
            ("Links", str(app.link_count())),
            ("Connections", str(app.streams_open())),
            ("Requests", str(stats.get("requests_total", 0))),
            ("Datagrams", datagrams_text(datagram_figures(stats))),
        ):
            facts.add_row(name, value if isinstance(value, Text) else Text(escape(value)))
        return facts


def _rich_table(columns: tuple[str, ...], rows: list[list[str]]) -> Table:
    table = Table(*columns)
    for row in rows:
        table.add_row(*(Text(escape(cell)) for cell in row))
    return table
