"""A server under attack: one tunnel that has to go on answering, and one that belongs to the attacker."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.ports import free_port_range
from tests.support.processes import Client, ServerProcess, service, wait_until


class Recorder:
    """An upstream that keeps every byte it gets and answers each head with its request line."""

    def __init__(self) -> None:
        self._sock = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._sock.getsockname()[1])
        self.received = b""
        self.answer: bytes | None = None  # in place of the usual one
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                conn, _ = self._sock.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(conn,), daemon=True).start()

    def _serve(self, conn: socket.socket) -> None:
        waiting = b""
        with conn, contextlib.suppress(OSError):
            while data := conn.recv(65536):
                waiting += data
                with self._lock:
                    self.received += data
                while b"\r\n\r\n" in waiting:
                    head, _, waiting = waiting.partition(b"\r\n\r\n")
                    line = head.split(b"\r\n")[0]
                    usual = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(line), line)
                    conn.sendall(usual if self.answer is None else self.answer)

    def close(self) -> None:
        self._sock.close()


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("security")


@pytest.fixture(scope="module")
def options(directory: Path) -> tuple[object, ...]:
    """Further options of the server; modules say more."""
    return ()


@pytest.fixture(scope="module")
def server(directory: Path, options: tuple[object, ...]) -> Iterator[ServerProcess]:
    """One for all tests of a module: each attack has to leave it whole for the next."""
    server = ServerProcess(directory, str(free_port_range(4)), "--drain-timeout", 1, *options)
    server.start()
    yield server
    server.end()


@pytest.fixture(scope="module")
def tenant(server: ServerProcess, directory: Path) -> Iterator[Client]:
    """Somebody else's tunnel, serving."""
    client = Client(server, directory / "tenant.json")
    with service() as web:
        client.start("http", web.port)
        wait_until(lambda: server.serves(client.hostname))
        yield client
        client.end()


@pytest.fixture(scope="module")
def recorder() -> Iterator[Recorder]:
    recorder = Recorder()
    yield recorder
    recorder.close()


@pytest.fixture(scope="module")
def recorded(server: ServerProcess, recorder: Recorder, directory: Path) -> Iterator[Client]:
    client = Client(server, directory / "target.json")
    client.start("http", recorder.port)
    wait_until(lambda: server.serves(client.hostname))
    yield client
    client.end()


@pytest.fixture
def target(recorded: Client, recorder: Recorder) -> Client:
    """A tunnel whose upstream records what reaches it; nothing has yet."""
    recorder.received = b""
    return recorded


@pytest.fixture(scope="module")
def key(server: ServerProcess, directory: Path) -> str:
    """The attacker's own tunnel: its token."""
    client = Client(server, directory / "attacker.json")
    return str(json.loads(client.config.read_text())["key"])
