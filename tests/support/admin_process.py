"""The admin process as the server starts it, and HTTP over its socket byte for byte."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spokes.admin.process import ADMIN_SOCKET_NAME, STORE_VARIABLE
from spokes.store import Store

START_TIMEOUT_S = 30
ANSWER_TIMEOUT_S = 30
DOMAIN = "tun.example.net"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Wire:
    """One connection; requests are written as they are given."""

    def __init__(self, path: Path) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(ANSWER_TIMEOUT_S)
        self.sock.connect(str(path))
        self._file = self.sock.makefile("rb")

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def read(self) -> Answer:
        status = int(self._file.readline().split()[1])
        headers = {}
        while (line := self._file.readline()) not in (b"\r\n", b""):
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(self._file.readline(), 16):
                body += self._file.read(size)
                self._file.readline()
            self._file.readline()
        else:
            body = self._file.read(int(headers.get("content-length", 0)))
        return Answer(status, headers, body)

    def is_closed(self) -> bool:
        """Whether the other side has closed; waits for it."""
        return self._file.read(1) == b""

    def close(self) -> None:
        self._file.close()
        self.sock.close()


def request(method: str, path: str, body: bytes | None = None, **headers: str) -> bytes:
    """As an existing client writes it; `headers` have `_` for `-`, and an empty one is left out."""
    fields = {"Host": DOMAIN, "Content-Type": "application/json", "Accept": "application/json"}
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    if body is not None and "Transfer-Encoding" not in fields:
        fields.setdefault("Content-Length", str(len(body)))
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items() if value)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")


class AdminProcess:
    def __init__(self, directory: Path, process: subprocess.Popen[bytes], store_url: str) -> None:
        self.directory = directory
        self.process = process
        self.store_url = store_url
        self.socket_path = directory / ADMIN_SOCKET_NAME

    @contextlib.contextmanager
    def wire(self) -> Iterator[Wire]:
        wire = Wire(self.socket_path)
        try:
            yield wire
        finally:
            wire.close()

    def ask(self, data: bytes) -> Answer:
        with self.wire() as wire:
            wire.send(data)
            return wire.read()

    def wait_for_answer(self, *statuses: int) -> None:
        """Until its health check is answered with one of these; a socket may be there before anybody listens."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                if self.ask(request("GET", "/healthz")).status in statuses:
                    return
            except OSError:
                assert self.process.poll() is None, "the admin process ended"
            assert time.monotonic() < deadline, "the admin process does not answer"
            time.sleep(0.02)

    def worker_pids(self) -> list[int]:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in children.split()]

    def rss_bytes(self) -> int:
        """Of all its processes together."""
        total = 0
        for pid in (self.process.pid, *self.worker_pids()):
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        return total


@contextlib.contextmanager
def admin_process(*arguments: str, store_url: str = "") -> Iterator[AdminProcess]:
    """Runs until the block ends; its socket answers. Its store has no API keys yet."""
    # Directly under the system's temporary directory: a socket's path may be 107 bytes long at most.
    with tempfile.TemporaryDirectory(prefix="spokes-admin-") as name:
        directory = Path(name)
        url = store_url or f"sqlite:///{directory / 'spokes.db'}"
        Store.open(url).close()
        process = subprocess.Popen(
            [sys.executable, "-m", "spokes.admin", "--data", name, "--domain", DOMAIN, *arguments],
            env={**os.environ, STORE_VARIABLE: url},
        )
        running = AdminProcess(directory, process, url)
        try:
            running.wait_for_answer(200)
            yield running
        finally:
            process.terminate()
            process.wait(START_TIMEOUT_S)
