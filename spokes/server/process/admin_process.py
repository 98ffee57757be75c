"""The administration: gunicorn as a child of the server, started, watched and started again.

Owns: the one process group of that name; a group is gone before the next one begins. It ends with the server, also when
the server is killed (child.py).
Bound: waits between starts double from nothing to RESTART_WAIT_S_MAX while the child ends early. gunicorn's master
replaces workers that hang; one that answers nothing for HANG_S, whoever of them hangs, is killed.
Fails: never the server: without administration the engine answers SPK-ADMIN-DOWN at the own name, and traffic goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from spokes import clock
from spokes._fastpath.engine import Upstream
from spokes.config import ServerConfig
from spokes.server.notify.mail import PASSWORD_VARIABLE
from spokes.supervisor import Supervisor

log = logging.getLogger(__name__)

SOCKET_NAME = "admin.sock"
FAULT_PAGE = "SPK-ADMIN-DOWN"
RESTART_WAIT_S_MIN = 0.25  # before the second start; the first one follows at once
RESTART_WAIT_S_MAX = 30.0
LONG_LIFE_S = 30.0  # who lived that long is started again at once
PROBE_INTERVAL_S = 10.0
PROBE_DEADLINE_S = 15.0  # any answer will do: a store that is away is no reason to kill who says so
HANG_S = 75.0  # longer than gunicorn takes to replace a worker
PROBE = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
STOP_S = 10.0  # for requests under way to end; then the group is killed


def admin_command(config: ServerConfig, directory: Path, server_key: str, https_port: int) -> list[str]:
    """What is run. The store's URL may hold a password and goes by the environment.

    -P: `-m` would look for modules in the present directory first, and who started us there may not own it.
    """
    return [
        sys.executable, "-P", "-m", "spokes.server.process.child", str(os.getpid()), "spokes.admin",
        "--data", str(directory.absolute()), "--domain", config.domain,
        "--workers", str(config.admin_workers), "--threads", str(config.admin_threads),
        "--tcp-ports", str(config.tcp_ports), "--server-key", server_key, "--https-port", str(https_port),
        "--tunnels-per-user", str(config.tunnels_per_user_max),
        *(("--domain-proof",) if config.domain_proof else ()),
        *(word for one in config.domain_resolvers for word in ("--resolver", str(one))),
        *(("--path-prefix", config.path_prefix) if config.path_prefix else ()),
        *(("--metrics", str(config.metrics)) if config.metrics else ()),
        "--log-format", config.log_format, "--log-level", config.log_level,
    ]  # fmt: skip


def admin_environment(config: ServerConfig) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != PASSWORD_VARIABLE}
    return {**kept, "SPOKES_STORE": config.store_url}


def admin_upstream(directory: Path) -> Upstream:
    """Where the engine finds it."""
    return Upstream(unix_path=str(directory / SOCKET_NAME), name="administration", fault_page=FAULT_PAGE)


class AdminProcess:
    """Keeps one child running from start() to stop()."""

    def __init__(
        self,
        command: Sequence[str],
        environment: dict[str, str],
        *,
        socket_path: Path,
        probe_interval_s: float = PROBE_INTERVAL_S,
        hang_s: float = HANG_S,
        supervisor: Supervisor | None = None,
    ) -> None:
        self._supervisor = supervisor or Supervisor()
        self._command = command
        self._environment = environment
        self._socket_path = socket_path
        self._probe_interval_s = probe_interval_s
        self._hang_s = hang_s
        self._tasks: list[asyncio.Task[None]] = []
        self._process: asyncio.subprocess.Process | None = None
        self._heard_at = 0.0
        self._stop_s = STOP_S
        self.start_count = 0

    @property
    def pid(self) -> int:
        """Of the child that runs now; 0: none does."""
        return self._process.pid if self._process is not None else 0

    def start(self) -> None:
        self._tasks = [
            self._supervisor.keep("administration", self._keep),
            self._supervisor.keep("administration's answers", self._watch),
        ]

    async def stop(self, within_s: float = STOP_S) -> None:
        """Requests under way may end meanwhile. Idempotent."""
        self._stop_s = within_s
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep(self) -> None:
        wait_s = 0.0
        while True:
            began = clock.monotonic_s()
            why = await self._run()
            lived_s = clock.monotonic_s() - began
            if lived_s >= LONG_LIFE_S:
                wait_s = 0.0
            log.error(
                "administration ended", extra={"why": why, "lived_s": round(lived_s, 1), "wait_s": round(wait_s, 2)}
            )
            await asyncio.sleep(wait_s)
            wait_s = min(max(2 * wait_s, RESTART_WAIT_S_MIN), RESTART_WAIT_S_MAX)

    async def _run(self) -> str:
        """One life of the child; why it ended."""
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.DEVNULL,
                env=self._environment,
                cwd="/",  # gunicorn does not start where its user may not look, as in the home of whoever typed `su`
                start_new_session=True,  # Ctrl-C in our terminal is ours to answer
            )
        except OSError as error:
            return f"not started: {error.strerror or error}"
        self._process = process
        self._heard_at = clock.monotonic_s()
        self.start_count += 1
        log.info("administration started", extra={"pid": process.pid, "start_count": self.start_count})
        try:
            code = await process.wait()
        except asyncio.CancelledError:
            await self._end(process)
            raise
        finally:
            # Workers outlive a killed master for up to a second: they must be gone before others take their place.
            _kill_group(process.pid)
            self._process = None
        return f"exit code {code}" if code >= 0 else f"signal {-code}"

    async def _watch(self) -> None:
        """Kills the child when it has been silent for too long, each that there is."""
        while True:
            await asyncio.sleep(self._probe_interval_s)
            process = self._process
            if process is None:
                continue
            answers = await self._answers()
            if process is not self._process:
                continue  # another one by now, with its own time
            if answers:
                self._heard_at = clock.monotonic_s()
            elif clock.monotonic_s() - self._heard_at >= self._hang_s:
                log.error("administration hangs", extra={"pid": process.pid, "silent_s": self._hang_s})
                _kill_group(process.pid)
                self._heard_at = clock.monotonic_s()  # it takes a moment to be gone

    async def _answers(self) -> bool:
        try:
            async with asyncio.timeout(min(PROBE_DEADLINE_S, self._hang_s)):
                reader, writer = await asyncio.open_unix_connection(self._socket_path)
                try:
                    writer.write(PROBE)
                    return bool(await reader.read(1))
                finally:
                    writer.transport.abort()
        except (OSError, TimeoutError):
            return False

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(self._stop_s):
                await process.wait()
        except TimeoutError:
            log.warning("administration killed", extra={"pid": process.pid, "waited_s": self._stop_s})
            _kill_group(process.pid)
            await process.wait()


def _kill_group(pid: int) -> None:
    """The child began a session: its process group has its number."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
