"""Programs whose output nobody reads: a log collector that hangs, a terminal that was stopped."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import signal
import subprocess
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.conftest import free_port_range
from tests.support import processes
from tests.support.processes import BIN, READY_LINE, Client, Process, ServerProcess, wait_until

pytestmark = pytest.mark.e2e


class PipedProcess(Process):
    """Its output goes into a small pipe that is read only when asked for."""

    def __init__(self, log: Path, program: str, *args: object) -> None:
        self.read_fd, write_fd = os.pipe()
        fcntl.fcntl(write_fd, fcntl.F_SETPIPE_SZ, 4096)
        os.set_blocking(self.read_fd, False)
        self._read = b""
        self.popen = subprocess.Popen(
            [str(BIN / program), *map(str, args)],
            stdin=subprocess.DEVNULL, stdout=write_fd, stderr=write_fd, env=processes.clean_environment(),
        )  # fmt: skip
        os.close(write_fd)

    def log(self) -> str:
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self.read_fd, 65536):
                self._read += data
        return self._read.decode(errors="replace")

    def fill(self) -> None:
        """Until not one more byte fits."""
        end = os.open(f"/proc/{self.popen.pid}/fd/1", os.O_WRONLY | os.O_NONBLOCK)
        with contextlib.suppress(BlockingIOError):
            while os.write(end, b"#"):
                pass
        os.close(end)


@pytest.fixture
def piped_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServerProcess]:
    server = ServerProcess(tmp_path, str(free_port_range(4)), "--admin", "true", "--drain-timeout", 1)
    with monkeypatch.context() as patched:
        patched.setattr(processes, "Process", PipedProcess)
        server.start()
    yield server
    server.end()


def test_server_whose_log_is_stuck_lets_clients_in_answers_and_ends(piped_server, tmp_path, web):
    client = Client(piped_server, tmp_path / "client.json")
    process = piped_server.process
    assert isinstance(process, PipedProcess)
    wait_until(lambda: piped_server.serves("tun.test"), what="the administration")
    process.fill()
    try:
        client.start("http", web.port)
        wait_until(lambda: piped_server.serves(client.hostname), what="a client is served")
        assert piped_server.status()["tunnels"]["online"] == 1
        assert piped_server.serves("tun.test")
        assert process.end(signal.SIGTERM, within_s=30) == 0
    finally:
        client.end()


def test_server_whose_log_was_stuck_goes_on_with_it(piped_server, tmp_path):
    process = piped_server.process
    assert isinstance(process, PipedProcess)
    process.fill()
    Client(piped_server, tmp_path / "client.json")  # registers: a line in the log
    wait_until(lambda: "tunnel registered" in process.log(), what="the line")
    assert READY_LINE in process.log()


@pytest.mark.parametrize("verb", ["http", "start"])
def test_client_whose_terminal_is_stopped_reconnects_answers_and_ends(verb, server, client, web):
    client.spoke("tunnel", "http", "add", "--domain", client.hostname, "--http", web.port)
    master, slave = pty.openpty()
    words = ["http", str(web.port)] if verb == "http" else ["start", "--api-port", "0"]
    spoke = subprocess.Popen(
        [str(BIN / "spoke"), *words, "--config", str(client.config)],
        stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
        env={**processes.clean_environment(), "TERM": "xterm"},
    )  # fmt: skip
    try:
        wait_until(lambda: server.serves(client.hostname))
        termios.tcflow(slave, termios.TCOOFF)
        for _ in range(2):  # each restart has the client say much
            server.end()
            server.start()
            wait_until(lambda: server.serves(client.hostname), within_s=40, what="the client is back")
        client.spoke("info")
        spoke.send_signal(signal.SIGTERM)
        assert spoke.wait(30) == 0
    finally:
        spoke.kill()
        spoke.wait()
        os.close(master)
        os.close(slave)
