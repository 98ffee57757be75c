"""Real `spokes` and `spoke` processes on loopback addresses, and a service for them to publish."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.support.threads import join_thread

BIN = Path(sys.executable).parent
DOMAIN = "tun.test"
READY_LINE = "Spokes is ready"
READY_WITHIN_S = 60.0


def wait_until(condition: Callable[[], object], within_s: float = 40.0, what: str = "the condition") -> None:
    """Returns once the condition holds; fails when it does not within the deadline."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {within_s:g} s")
        time.sleep(0.01)


def run(program: str, *args: object, code: int = 0, within_s: float = 60.0) -> subprocess.CompletedProcess[str]:
    """A verb that ends; its exit code must be the one expected, and no traceback may show."""
    done = subprocess.run(
        [str(BIN / program), *map(str, args)], capture_output=True, text=True, timeout=within_s, env=clean_environment()
    )
    assert done.returncode == code, (done.stdout, done.stderr)
    assert "Traceback" not in done.stdout + done.stderr
    return done


def clean_environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith(("SPOKES_", "SPOKE_"))}


class Process:
    """One of our programs with its output in a file."""

    def __init__(self, log: Path, program: str, *args: object) -> None:
        self.log_path = log
        with log.open("ab") as file:
            self.popen = subprocess.Popen(
                [str(BIN / program), *map(str, args)],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=clean_environment(),
            )

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def send(self, number: signal.Signals) -> None:
        self.popen.send_signal(number)

    def end(self, number: signal.Signals = signal.SIGKILL, within_s: float = 15.0) -> int:
        if self.popen.poll() is None:
            self.popen.send_signal(number)
        return self.popen.wait(within_s)


class ServerProcess:
    """`spokes server` in a data directory; start() again after any end finds the same addresses."""

    def __init__(self, directory: Path, tcp_ports: str, *options: object, address: str = "127.0.0.1") -> None:
        self.directory = directory
        self.address = address
        self.data = directory / "data"
        self.tcp_ports = tcp_ports
        self.options = options
        self.http_port = self.https_port = 0
        self.link_key = ""  # its fingerprint, once it was started
        self.process: Process | None = None

    def start(self) -> None:
        log = self.directory / f"server-{time.monotonic_ns()}.log"
        self.process = process = Process(
            log, "spokes", "server", "--data", self.data, "--domain", DOMAIN,
            "--http", f"{self.address}:{self.http_port}", "--https", f"{self.address}:{self.https_port}",
            "--tcp-address", self.address, "--tcp-ports", self.tcp_ports,
            "--workers", 2, "--admin", "false", *self.options,
        )  # fmt: skip
        wait_until(
            lambda: READY_LINE in process.log() or process.popen.poll() is not None, READY_WITHIN_S, "the ready line"
        )
        assert process.popen.poll() is None, process.log()
        status = self.status()
        self.http_port = int(status["http"][0].rpartition(":")[2])
        self.https_port = int(status["https"][0].rpartition(":")[2])
        self.link_key = status["link_key"]

    def log(self) -> str:
        assert self.process is not None
        return self.process.log()

    def status(self) -> dict:
        return json.loads(run("spokes", "status", "--data", self.data, "--json").stdout)

    def end(self, number: signal.Signals = signal.SIGKILL) -> int:
        assert self.process is not None
        return self.process.end(number)

    @property
    def fingerprint(self) -> str:
        return self.status()["link_key"]

    def get(self, host: str, path: str = "/", within_s: float = 10.0) -> tuple[int, bytes]:
        """Status and body of a visitor's request over plain HTTP."""
        conn = http.client.HTTPConnection(self.address, self.http_port, timeout=within_s)
        try:
            conn.request("GET", path, headers={"Host": host})
            answer = conn.getresponse()
            return answer.status, answer.read()
        finally:
            conn.close()

    def serves(self, host: str, status: int = 200) -> bool:
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.get(host)[0] == status
        return False


class Client:
    """A registered `spoke` with a configuration of its own."""

    def __init__(self, server: ServerProcess, config: Path) -> None:
        self.server = server
        self.config = config
        self._logs = config  # beside the first place of the configuration, which a test may move
        done = run(
            "spoke", "configure", "--url", f"https://{server.address}:{server.https_port}",
            "--server-key", server.fingerprint, "--token-file", server.data / "first-token",
            "--config", config, "--json",
        )  # fmt: skip
        facts = json.loads(done.stdout)
        self.hostname: str = facts["hostname"]
        self.tunnel: str = facts["tunnel"]
        self.processes: list[Process] = []

    def spoke(self, *args: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        return run("spoke", *args, "--config", self.config, code=code)

    def try_spoke(self, *args: object) -> subprocess.CompletedProcess[str]:
        """As spoke(), whatever its exit code."""
        command = [str(BIN / "spoke"), *map(str, args), "--config", str(self.config)]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, env=clean_environment())

    def start(self, *verb: object, config: Path | None = None) -> Process:
        log = self._logs.with_suffix(f".{len(self.processes)}.log")
        process = Process(log, "spoke", *(verb or ("start", "--api-port", 0)), "--config", config or self.config)
        self.processes.append(process)
        return process

    def end(self) -> None:
        for process in self.processes:
            process.end()


BIG_BYTES = 1_500_000


class Service(http.server.ThreadingHTTPServer):
    """A web service: `/` says hello, `/big` sends BIG_BYTES, `/slow` ten pieces, one for each release of `gate`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.gate = threading.Semaphore(0)
        self.port = int(self.server_address[1])


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Service

    def do_GET(self) -> None:
        if self.path == "/big":
            self.send_response(200)
            self.send_header("Content-Length", str(BIG_BYTES))
            self.end_headers()
            self.wfile.write(bytes(BIG_BYTES))
            return
        if self.path != "/slow":
            self.send_response(200)
            self.send_header("Content-Length", "5")
            self.end_headers()
            self.wfile.write(b"hello")
            return
        self.send_response(200)
        self.send_header("Content-Length", "100")
        self.end_headers()
        for _ in range(10):
            self.server.gate.acquire(timeout=30)
            self.wfile.write(b"x" * 10)
            self.wfile.flush()

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@contextlib.contextmanager
def service() -> Iterator[Service]:
    server = Service()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def udp_echo() -> Iterator[int]:
    """A UDP service that answers every datagram by itself; its port."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    sock.settimeout(0.2)
    ending = threading.Event()

    def answer() -> None:
        while not ending.is_set():
            with contextlib.suppress(TimeoutError):
                data, peer = sock.recvfrom(65535)
                sock.sendto(data, peer)

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    try:
        yield int(sock.getsockname()[1])
    finally:
        ending.set()
        join_thread(thread)
        sock.close()
