"""What the verbs that serve say: one address on a line of its own, or the status of everything."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TextIO

from spokes.errors import RemoteError, SpokesError
from spokes.log import escape
from spokes.outlet import outlet_of
from spokes.wire.messages import Accepted, Fault

if TYPE_CHECKING:
    from spokes.client.app import App
    from spokes.client.console import Console
    from spokes.client.node import Node
    from spokes.client.service_health import HealthChange


class OneAddressConsole:
    """For `http` and `tcp`: the public address on a line of its own once it is served, everything else on stderr."""

    def __init__(
        self,
        name: str,
        address: Callable[[App], str],
        fault: Callable[[Accepted], Fault | None],
        *,
        as_json: bool,
    ) -> None:
        self._name = name
        self._address = address
        self._fault = fault
        self._as_json = as_json
        self._shown = False
        self._address_told = ""
        self._failed = False

    def connecting(self) -> None:
        if not self._failed:
            self._say("Connecting...")

    async def online(self, app: App) -> None:
        fault = self._fault(app.rules.accepted)
        if fault is not None:
            raise RemoteError(fault.message, code=fault.code)
        self._show(self._address(app))
        self._tell_other(app)
        self._failed = False
        self._say("Serving; Ctrl-C ends it.")

    def served_through(self, address: str, pid: int) -> None:
        """The client that runs already serves it."""
        self._show(address)
        self._say(f"Serving through the client that runs already (process {pid}); Ctrl-C ends it.")

    def client_gone(self) -> None:
        self._say("The running client is over.")

    def _show(self, address: str) -> None:
        if not self._shown:
            outlet_of(sys.stdout).write((json.dumps({self._name: address}) if self._as_json else address) + "\n")
            self._shown, self._address_told = True, address

    def changed(self, app: App) -> None:
        """Its one rule never changes, but its address may."""
        self._tell_other(app)

    def _tell_other(self, app: App) -> None:
        address = self._address(app)
        if address != self._address_told:
            self._address_told = address
            self._say(f"Visitors reach it at {address} now.")

    def delayed(self, app: App, error: SpokesError) -> None:
        self._say(escape(error.line()))

    def health_changed(self, changes: Sequence[HealthChange]) -> None:
        for change in changes:
            self._say(escape(change.line()))

    def node_changed(self, app: App, node: Node, error: SpokesError | None) -> None:
        if error is not None:
            self._say(f"Node {node} lost: {escape(error.line())}")

    def offline(self, error: SpokesError, wait_s: float) -> None:
        self._failed = True
        self._say(f"Not connected: {escape(error.line())}; next attempt in {wait_s:.1f} s")

    async def run(self, app: App) -> None:
        """Nothing changes by itself."""
        await asyncio.Event().wait()

    def _say(self, text: str) -> None:
        outlet_of(sys.stderr).write(text + "\n")


def write_log(text: str) -> None:
    """To whatever sys.stderr is at the moment: a live block takes it over, so that log lines appear above it."""
    stderr: TextIO = sys.stderr
    if stderr is sys.__stderr__:
        outlet_of(stderr).write(text)
    else:
        stderr.write(text)
        stderr.flush()


def status_console() -> Console:
    from spokes.client.status import LiveConsole, PlainConsole, terminal_console

    terminal = terminal_console(sys.stdout)
    return LiveConsole(terminal) if terminal.is_terminal else PlainConsole(sys.stdout)
