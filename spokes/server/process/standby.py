"""The standby of a server whose data directory it shares: it probes the primary, serves nothing, and takes over.

A primary holds the data directory's lock for as long as it lives (base/datadir.py). A standby that has seen
`ha_failures` probes fail in a row tries to take that lock, and goes on probing while another process holds it. So it
never serves beside a primary that runs and is slow, and of two standbys one starts.
A probe is a TLS handshake with the configured domain that asks for a link: only a Spokes server chooses ALPN
`spokes/1`. Its certificate is not verified, for it may be self-made, and nothing is said to the peer.
Bound: one probe at a time, `ha_timeout_s` each. Fails: DataDirError for a directory that cannot be used.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import socket
import ssl
from pathlib import Path
from typing import Any

import spokes
from spokes import clock
from spokes.config import ServerConfig
from spokes.control import STANDBY_SOCKET_PREFIX, STANDBY_SOCKET_SUFFIX
from spokes.errors import DataLockedError
from spokes.resolver import Resolve, Resolver
from spokes.server.base.datadir import DataLock, prepare_directory
from spokes.server.base.systemd import tell_status
from spokes.server.process.control import Args, ControlSocket

log = logging.getLogger(__name__)

LINK_ALPN = "spokes/1"  # docs/protocol.md
HTTPS_PORT = 443


class Standby:
    """wait() until this process is the one that serves."""

    def __init__(self, config: ServerConfig, *, resolve: Resolve | None = None) -> None:
        self._config = config
        self._resolve = resolve or Resolver(servers=config.resolver).addresses
        self._port = config.public_https_port or config.https[0].port or HTTPS_PORT
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.check_hostname = False
        self._context.verify_mode = ssl.CERT_NONE
        self._context.set_alpn_protocols([LINK_ALPN])
        self._started = clock.Since()
        self._failure_count = 0  # in a row
        self._failure = ""  # of the latest probe; "": the primary answered
        self._is_locked = False  # when it was tried last

    async def wait(self) -> DataLock:
        """Returns with the lock of the data directory, once the primary is gone."""
        directory = prepare_directory(self._config.data)
        _forget_ended_standbys(directory)
        control = ControlSocket(_socket_path(directory), {"status": self.status, "health": self._health})
        await control.start()
        log.info("standby begins", extra={"domain": self._config.domain, "port": self._port})
        tell_status(f"standby; probes {self._config.domain}:{self._port}")
        try:
            while True:
                begun = clock.monotonic_s()
                if await self._has_failed() and (lock := await self._take(directory)) is not None:
                    return lock
                await asyncio.sleep(max(0.0, begun + self._config.ha_interval_s - clock.monotonic_s()))
        finally:
            await control.close()

    async def status(self, _args: Args) -> dict[str, Any]:
        """What `spokes status` prints of a standby."""
        config = self._config
        return {
            "version": spokes.__version__,
            "pid": os.getpid(),
            "domain": config.domain,
            "role": "standby",
            "uptime_s": int(self._started.lasted_s()),
            "primary": self._failure or "answers",
            "failures": self._failure_count,
            "failures_allowed": config.ha_failures,
            "lock_held": self._is_locked,
        }

    async def _health(self, _args: Args) -> dict[str, Any]:
        return {}

    async def _has_failed(self) -> bool:
        """Probes once. Whether so many probes have failed in a row that the standby is to take over."""
        self._failure = await self._probe()
        if not self._failure:
            if self._failure_count:
                log.info("primary answers again", extra={"failures": self._failure_count})
                tell_status(f"standby; {self._config.domain} answers")
            self._failure_count, self._is_locked = 0, False
            return False
        self._failure_count += 1
        facts = {"failures": self._failure_count, "allowed": self._config.ha_failures, "detail": self._failure}
        log.warning("primary does not answer", extra=facts)
        return self._failure_count >= self._config.ha_failures

    async def _probe(self) -> str:
        """What was wrong; "" where a Spokes server answered."""
        try:
            async with asyncio.timeout(self._config.ha_timeout_s):
                return await self._greet((await self._resolve(self._config.domain)).addresses)
        except TimeoutError:
            return f"no answer within {self._config.ha_timeout_s:g} s"
        except ConnectionRefusedError:
            return "connection refused"
        except OSError as error:  # ssl.SSLError included
            return error.strerror or str(error)

    async def _greet(self, addresses: tuple[str, ...]) -> str:
        failure: OSError = OSError("the domain has no address")
        for address in addresses:
            try:
                _, writer = await asyncio.open_connection(
                    address, self._port, ssl=self._context, server_hostname=self._config.domain
                )
            except OSError as error:  # an address of a family that is not served is no sign by itself
                failure = error
                continue
            chosen = writer.get_extra_info("ssl_object").selected_alpn_protocol()
            writer.transport.abort()
            return "" if chosen == LINK_ALPN else "what answers is no Spokes server"
        raise failure

    async def _take(self, directory: Path) -> DataLock | None:
        """The lock; None while another process holds it."""
        try:
            lock = await asyncio.to_thread(DataLock, directory)
        except DataLockedError as error:
            if not self._is_locked:
                log.warning("standby stays: the data directory is in use", extra={"detail": str(error)})
                tell_status(f"standby; {self._config.domain} does not answer, and its data directory is in use")
            self._is_locked = True
            return None
        log.warning("standby takes over", extra={"failures": self._failure_count})
        tell_status("starts in place of the primary")
        return lock


def _host_tag() -> str:
    """Of this host, short enough for a socket's path: hosts that share a directory have sockets of their own there."""
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def _socket_path(directory: Path) -> Path:
    return directory / f"{STANDBY_SOCKET_PREFIX}{_host_tag()}-{os.getpid()}{STANDBY_SOCKET_SUFFIX}"


def _forget_ended_standbys(directory: Path) -> None:
    """Removes sockets that standbys of this host left when they were killed."""
    for path in directory.glob(f"{STANDBY_SOCKET_PREFIX}{_host_tag()}-*{STANDBY_SOCKET_SUFFIX}"):
        process_id = path.name.removesuffix(STANDBY_SOCKET_SUFFIX).rpartition("-")[2]
        if not (process_id.isdigit() and Path("/proc", process_id).exists()):
            path.unlink(missing_ok=True)
