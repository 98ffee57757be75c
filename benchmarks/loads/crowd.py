"""Visitors of one tunnel who ask for a download and read nothing, or a little now and then, and what its neighbour's
visitors feel of them."""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from benchmarks.loads import Metrics
from benchmarks.loads.http import parse_percentile_ms, run_wrk
from benchmarks.peers import RunningPeer
from benchmarks.processes import BenchmarkError
from benchmarks.scale import Scale
from benchmarks.upstream import DOWNLOAD_PATH, ENDLESS_PATH

CROWD_ADDRESS = "127.0.0.2"
RECEIVE_BUFFER_BYTES = 4096
SMALL_CONN_COUNT = 1
SLOW_READ_BYTES = 2048
SLOW_READ_INTERVAL_S = 4.0  # shorter than the time after which a visitor counts as one that reads nothing


def crowd(peer: RunningPeer, scale: Scale) -> Metrics:
    return _beside(peer, scale, scale.crowd_count, lambda _: contextlib.nullcontext())


def slow_crowd(peer: RunningPeer, scale: Scale) -> Metrics:
    return _beside(peer, scale, scale.slow_crowd_count, _reading_slowly)


def _beside(
    peer: RunningPeer, scale: Scale, count: int,
    reading: Callable[[list[socket.socket]], contextlib.AbstractContextManager[None]],
) -> Metrics:
    """`arriving`: from the first of them on, while they connect and get what is sent ahead. `crowded`: they stand."""
    quiet_p99_ms, quiet_rate = _small_requests_p99_ms(peer, scale), _download_mb_per_s(peer)
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(1) as beside:
        arriving = beside.submit(_small_requests_p99_ms, peer, scale)
        socks = [stack.enter_context(_stand_still(peer)) for _ in range(count)]
        stack.enter_context(reading(socks))
        arriving_p99_ms = arriving.result()
        crowded_p99_ms, crowded_rate = _small_requests_p99_ms(peer, scale), _download_mb_per_s(peer)
    return {
        "quiet_p99_ms": quiet_p99_ms, "arriving_p99_ms": arriving_p99_ms, "crowded_p99_ms": crowded_p99_ms,
        "quiet_mb_per_s": quiet_rate, "crowded_mb_per_s": crowded_rate,
    }


@contextlib.contextmanager
def _reading_slowly(socks: list[socket.socket]) -> Iterator[None]:
    """Each in its turn; one that the server has reset is left out."""
    over = threading.Event()

    def read() -> None:
        for sock in itertools.cycle(socks):
            if over.wait(SLOW_READ_INTERVAL_S / len(socks)):
                return
            with contextlib.suppress(OSError):
                sock.recv(SLOW_READ_BYTES, socket.MSG_DONTWAIT)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        yield
    finally:
        over.set()
        reader.join(10)


def _stand_still(peer: RunningPeer) -> socket.socket:
    endpoint = peer.endpoint("crowded")
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
    sock.settimeout(10.0)
    sock.bind((CROWD_ADDRESS, 0))
    sock.connect((endpoint.address, endpoint.port))
    sock.sendall(f"GET {ENDLESS_PATH} HTTP/1.1\r\nHost: {endpoint.host}\r\n\r\n".encode())
    return sock


def _small_requests_p99_ms(peer: RunningPeer, scale: Scale) -> float:
    text = run_wrk(
        peer, peer.endpoint("http"), conn_count=SMALL_CONN_COUNT, thread_count=1, duration_s=scale.duration_s,
    )
    return parse_percentile_ms(text, 99)


def _download_mb_per_s(peer: RunningPeer) -> float:
    endpoint = peer.endpoint("http")
    began, got = time.monotonic(), 0
    try:
        with socket.create_connection((endpoint.address, endpoint.port), timeout=30.0) as sock:
            sock.sendall(f"GET {DOWNLOAD_PATH} HTTP/1.1\r\nHost: {endpoint.host}\r\nConnection: close\r\n\r\n".encode())
            while data := sock.recv(1 << 18):
                got += len(data)
    except OSError as error:
        raise BenchmarkError(f"the download broke off after {got} bytes: {error}") from error
    if got < 100_000_000:
        raise BenchmarkError(f"the download ended after {got} bytes")
    return got / 1e6 / (time.monotonic() - began)
