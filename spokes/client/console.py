"""Where the client says what happens: what a console has to be, and the troubles that it shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from spokes.client.service_health import HealthChange
from spokes.errors import SpokesError

if TYPE_CHECKING:
    from spokes.client.app import App
    from spokes.client.node import Node


@dataclass(frozen=True, slots=True)
class Trouble:
    """One thing that went wrong, for the status block."""

    at: float  # Unix time
    line: str


class Console(Protocol):
    def connecting(self) -> None: ...
    async def online(self, app: App) -> None:
        """Serving: the server has accepted the rules; again after each reconnect."""
        ...

    def changed(self, app: App) -> None:
        """Rules, or the address to show, changed while serving."""
        ...

    def delayed(self, app: App, error: SpokesError) -> None:
        """The server cannot store the rules now; `changed` follows when it has."""
        ...

    def health_changed(self, changes: Sequence[HealthChange]) -> None:
        """Services began to fail, or answer again; once a second at most."""
        ...

    def offline(self, error: SpokesError, wait_s: float) -> None:
        """No node has a session now; one attempt has just failed."""
        ...

    def node_changed(self, app: App, node: Node, error: SpokesError | None) -> None:
        """One node got a session beside others, or lost its own while others go on."""
        ...

    async def run(self, app: App) -> None:
        """Show what changes by itself, until cancelled."""
        ...
