"""Two clients with one key: a cloned machine, a copied configuration, an old container that was forgotten.

The same client that comes back over a new link takes its tunnel over at once, since the old link is dead. Where the old
link turns out to be alive, there are two clients. The newer one stays; whoever comes while it answers is told to wait,
so that two of them do not put each other out for ever, whatever restarts them. The operator is told both addresses.

Bound: one entry for each tunnel that was fought over in the last COPY_MEMORY_S.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from spokes import clock
from spokes.errors import CopyError
from spokes.server.sessions.link import Link

log = logging.getLogger(__name__)

ANSWER_S = 2.0  # for a client that is alive to answer a PING; longer than most paths take with one retry
COPY_MEMORY_S = 600.0  # after the last sign of two
WAIT_S = 30.0  # until the one that was told to wait asks again
ALERT = "copy"

OnCopy = Callable[[str, str], None]  # tunnel, words


class Copies:
    def __init__(self) -> None:
        self._seen: dict[str, float] = {}  # tunnel: when two of its clients were last seen alive (monotonic)
        self.on_copy: OnCopy = _nobody

    def tunnels(self) -> set[str]:
        """Those that two clients want now, or wanted a while ago."""
        now = clock.monotonic_s()
        self._seen = {uid: at for uid, at in self._seen.items() if now - at < COPY_MEMORY_S}
        return set(self._seen)

    async def admit(self, tunnel_uid: str, hostname: str, link: Link, sitting: Link | None) -> bool:
        """Raises when another client has the tunnel and is to keep it. Whether that took a moment to find out."""
        if sitting is None or tunnel_uid not in self.tunnels():
            return False
        if await sitting.is_there(ANSWER_S):
            self._note(tunnel_uid, hostname, stays=sitting, other=link)
            raise CopyError(
                f"another client of this tunnel is connected, from {shown(sitting.peer)}",
                hint="two clients use this configuration; give each its own with: spoke configure",
                retry_after_s=WAIT_S,
            )
        return True

    def when_known(self, tunnel_uid: str, hostname: str, old: Link, new: Link, cut: Callable[[], None]) -> None:
        """Calls `cut` once it is known whether the old link, which the new one has replaced, is alive."""

        def answered() -> None:
            timer.cancel()
            self._note(tunnel_uid, hostname, stays=new, other=old)
            cut()

        def silent() -> None:
            old.forget(answered)
            cut()

        timer = asyncio.get_running_loop().call_later(ANSWER_S, silent)
        old.ask(answered)

    def _note(self, tunnel_uid: str, hostname: str, *, stays: Link, other: Link) -> None:
        self._seen[tunnel_uid] = clock.monotonic_s()
        has, wants = shown(stays.peer), shown(other.peer)
        log.warning("two clients with one key", extra={"tunnel_uid": tunnel_uid, "has": has, "wants": wants})
        self.on_copy(tunnel_uid, f"two clients use the key of {hostname}: {has} has the tunnel, {wants} wants it")


def shown(peer: str) -> str:
    """`ADDRESS:PORT` of the "address port" that the engine tells."""
    address, _, port = peer.rpartition(" ")
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _nobody(_tunnel_uid: str, _words: str) -> None:
    """Nobody wants to hear."""
