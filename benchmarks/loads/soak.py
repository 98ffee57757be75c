"""What is left behind after very many short lives: memory after all of them against memory after the first 1 %."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from benchmarks.loads import Metrics
from benchmarks.loads.http import parse_count, run_wrk
from benchmarks.loads.light_client import LightClient, Link
from benchmarks.loads.memory import rest_rss_bytes
from benchmarks.peers import Endpoint, RunningPeer
from benchmarks.peers.spokes import DOMAIN, Control
from benchmarks.processes import BenchmarkError
from benchmarks.scale import Scale
from benchmarks.upstream import DOWNLOAD_BYTES, DOWNLOAD_PATH

MB = 1_000_000
VISITOR_COUNT = 16                  # at once
ABORT_AFTER_BYTES = 256 * 1024
SLICE_S = 10.0
LOGINS_AT_ONCE = 8


def soak_short(peer: RunningPeer, scale: Scale) -> Metrics:
    """A conn per request, by the million."""
    endpoint = peer.endpoint("http")

    def run(count: int) -> None:
        done, slice_s = 0, 1.0
        while done < count:
            text = run_wrk(
                peer, endpoint, conn_count=scale.conn_count, thread_count=2, duration_s=slice_s, close=True,
            )
            done += parse_count(text)
            slice_s = min(SLICE_S, max(1.0, (count - done) * slice_s / parse_count(text)))

    return _growth(peer, scale.short_conn_count, run)


def soak_abort(peer: RunningPeer, scale: Scale) -> Metrics:
    """Visitors who ask for 100 MB and leave, every other one with a reset."""
    endpoint = peer.endpoint("http")

    def run(count: int) -> None:
        with ThreadPoolExecutor(VISITOR_COUNT) as visitors:
            for _ in visitors.map(lambda index: _abort_download(endpoint, reset=index % 2 == 0), range(count)):
                pass

    return _growth(peer, scale.abort_count, run)


def soak_relogin(peer: RunningPeer, scale: Scale) -> Metrics:
    """Clients that fall silent without a word and log in again, each over its own dead link."""
    control = peer.control
    if not isinstance(control, Control):
        raise BenchmarkError(f"{peer.name} does not speak the link protocol")

    def run(count: int) -> None:
        asyncio.run(_relogin(control, count))

    return _growth(peer, scale.relogin_count, run, sides=("server",))


def _growth(peer: RunningPeer, count: int, run: Callable[[int], None], sides: tuple[str, ...] = ()) -> Metrics:
    first = max(1, count // 100)
    run(first)
    before = rest_rss_bytes(peer)
    run(count - first)
    after = rest_rss_bytes(peer)
    metrics = {f"{side}_growth_mb": (after[side] - before[side]) / MB for side in sides or after}
    if isinstance(peer.control, Control):
        metrics |= peer.control.left_open()
    return metrics


def _abort_download(endpoint: Endpoint, *, reset: bool) -> None:
    with socket.create_connection((endpoint.address, endpoint.port), timeout=10.0) as conn:
        host = endpoint.host or endpoint.address
        conn.sendall(f"GET {DOWNLOAD_PATH} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        received = 0
        while received < ABORT_AFTER_BYTES:
            chunk = conn.recv(65536)
            if not chunk:
                raise BenchmarkError(f"download ended after {received} of {DOWNLOAD_BYTES} bytes")
            if not received and b" 200 " not in chunk[:20]:
                raise BenchmarkError("download: " + chunk.splitlines()[0].decode(errors="replace"))
            received += len(chunk)
        if reset:
            conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def _relogin(control: Control, count: int) -> None:
    client = LightClient(control.link_address, control.link_port, DOMAIN)

    async def one_tunnel(times: int) -> None:
        key = await client.register(control.token, "relogin")
        dead: Link | None = None
        for _ in range(times):
            link = await client.log_in(key)
            if dead:
                dead.close()            # only now: the server had to take over without hearing of it
            link.fall_silent()
            dead = link
        if dead:
            dead.close()

    share, rest = divmod(count, LOGINS_AT_ONCE)
    await asyncio.gather(*(one_tunnel(share + (index < rest)) for index in range(LOGINS_AT_ONCE)))
