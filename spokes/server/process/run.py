"""`spokes server` from its first line to its last: signals, what is printed, exit code.

SIGTERM and SIGINT drain, the second one ends at once; SIGHUP reads the configuration again. A standby waits first, and
then serves in the same process.
"""

from __future__ import annotations

import asyncio
import logging
import shlex
import signal
from collections.abc import Callable, Coroutine
from typing import TypeVar

import spokes
from spokes import collector, event_loop
from spokes._fastpath.engine import ListenerKind
from spokes.config import ServerConfig
from spokes.errors import SpokesError
from spokes.server.base.datadir import FIRST_TOKEN_NAME, DataLock
from spokes.server.base.systemd import tell_status
from spokes.server.process.app import Server
from spokes.server.process.standby import Standby

log = logging.getLogger(__name__)

READY_LINE = "Spokes is ready"
STANDBY_LINE = "Spokes is a standby"

T = TypeVar("T")

Echo = Callable[[str], None]


def run_server(config: ServerConfig, *, reread: Callable[[], ServerConfig], echo: Echo) -> None:
    """Serves until told to stop. Fails: whatever Server.start fails with; KeyboardInterrupt, after all was ended in
    order, when it was Ctrl-C that stopped it."""
    if event_loop.run(_serve(config, reread, echo)) is signal.SIGINT:
        raise KeyboardInterrupt


async def _serve(config: ServerConfig, reread: Callable[[], ServerConfig], echo: Echo) -> signal.Signals:
    """The signal that ended it."""
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    received: list[signal.Signals] = []

    def stop(number: signal.Signals) -> None:
        received.append(number)
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)
    lock: DataLock | None = None
    if config.ha_mode:
        loop.add_signal_handler(signal.SIGHUP, log.info, "a standby reads its configuration when it takes over")
        echo(STANDBY_LINE)
        lock = await _unless(stopping, Standby(config).wait())
        if lock is None:
            return received[0]
        config = _read_again(reread, config)
    server = Server(config, reread=reread, lock=lock)

    def force_stop(number: signal.Signals) -> None:
        if received:
            server.force_stop()
        stop(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, force_stop, number)
    reloading = _Reloading(server)
    loop.add_signal_handler(signal.SIGHUP, reloading.begin)
    if await _unless(stopping, _start(server)) is None:
        return received[0]
    tell_status("serves")
    collector.settle()
    token_path = await server.offer_first_token()
    for line in banner(server, with_token=token_path is not None):
        echo(line)
    echo(READY_LINE)
    await stopping.wait()
    await reloading.end()
    await server.stop()
    return received[0]


async def _start(server: Server) -> Server:
    await server.start()
    return server


def _read_again(reread: Callable[[], ServerConfig], known: ServerConfig) -> ServerConfig:
    """The configuration as it is now: a standby may have waited for months. What cannot be taken is logged."""
    try:
        return reread()
    except SpokesError as error:
        log.error("configuration not taken", extra={"code": error.code, "detail": error.line()})
        return known


async def _unless(stopping: asyncio.Event, start: Coroutine[None, None, T]) -> T | None:
    """What it comes to; None where a signal comes first."""
    work = asyncio.create_task(start)
    signalled = asyncio.create_task(stopping.wait())
    await asyncio.wait({work, signalled}, return_when=asyncio.FIRST_COMPLETED)
    if work.done():
        signalled.cancel()
        return work.result()
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    return None


class _Reloading:
    """One reload at a time; a signal during one is answered by another one behind it."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        before = self._task
        self._task = asyncio.get_running_loop().create_task(self._reload(before))

    async def end(self) -> None:
        if self._task is not None:
            await self._task

    async def _reload(self, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await before
        try:
            await self._server.reload()
        except SpokesError as error:
            log.error("configuration not taken", extra={"code": error.code, "detail": error.line()})
        except Exception:
            log.exception("configuration not taken")


def banner(server: Server, *, with_token: bool) -> list[str]:
    """What an operator needs to know at start."""
    config = server.config
    lines = [
        f"Spokes {spokes.__version__}, data in {server.directory}",
        f"Domain: {config.domain}",
        "HTTP:   " + ", ".join(str(address) for address in server.addresses(ListenerKind.HTTP)),
        "HTTPS:  " + ", ".join(str(address) for address in server.addresses(ListenerKind.TLS)),
        f"Ports:  {config.tcp_ports}",
        f"Key:    {server.link_certificate.fingerprint}",
    ]
    words = ["spoke", "configure", "--url", server.public.urls(config.domain)[-1]]
    words += ["--server-key", server.link_certificate.fingerprint]
    if with_token:
        path = server.directory / FIRST_TOKEN_NAME
        lines.append(f"Token:  in {path}; a client on another machine needs a copy of that file")
        words += ["--token-file", str(path)]
    lines += ["Connect a client:", "  " + shlex.join(words)]
    return lines
