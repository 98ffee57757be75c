"""TLS visitors: requests on kept conns, handshakes from nothing and resumed, and renewals beside them."""

from __future__ import annotations

import functools
import socket
import ssl
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.certificate_pairs import HTTPS_NAMES, leaf_der
from benchmarks.loads import Metrics
from benchmarks.loads.http import THREAD_COUNT, parse_percentile_ms, parse_rate, run_wrk
from benchmarks.loads.memory import rest_rss_bytes
from benchmarks.peers import RunningPeer
from benchmarks.peers.spokes import CERTIFICATES, Control
from benchmarks.processes import BenchmarkError, Room, run_load
from benchmarks.programs import built
from benchmarks.scale import Scale

SOURCE = Path(__file__).with_name("tls_visitors.c")
RESUMED_SHARE_MIN = 0.95        # the first of each conn cannot be
RENEWED_WITHIN_S = 10.0
SLICE_COUNT = 10_000            # of a soak, or one limit of time would have to do for all machines
MB = 1_000_000


@dataclass(frozen=True, slots=True)
class Handshakes:
    """What tls_visitors.c says."""

    count: int
    failed: int
    resumed: int
    duration_s: float
    processor_s: float
    words: str


def https_keepalive(peer: RunningPeer, scale: Scale) -> Metrics:
    text = run_wrk(
        peer, peer.endpoint("https"), conn_count=scale.conn_count, thread_count=THREAD_COUNT,
        duration_s=scale.duration_s,
    )
    return {"requests_per_s": parse_rate(text), "p99_ms": parse_percentile_ms(text, 99)}


def tls_handshakes(peer: RunningPeer, scale: Scale) -> Metrics:
    return _handshakes(peer, scale)


def tls_resumed(peer: RunningPeer, scale: Scale) -> Metrics:
    return _handshakes(peer, scale, "--resume")


def _handshakes(peer: RunningPeer, scale: Scale, *words: str) -> Metrics:
    """The load costs about as much as the server, so what each cost the server is told beside their number."""
    server = peer.processes["server"]
    before = server.cpu_s()
    done = run_handshakes(peer, "--conns", str(scale.conn_count), "--seconds", str(scale.duration_s), *words)
    used = server.cpu_s() - before
    if done.failed:
        raise BenchmarkError(f"{done.failed} of {done.count + done.failed} handshakes failed: {done.words}")
    if "--resume" in words and done.resumed < RESUMED_SHARE_MIN * (done.count - scale.conn_count):
        raise BenchmarkError(f"{done.resumed} of {done.count} handshakes were resumed")
    return {
        "handshakes_per_s": done.count / done.duration_s, "server_us_each": used / done.count * 1e6,
        "load_us_each": done.processor_s / done.count * 1e6,
    }


def soak_https(peer: RunningPeer, scale: Scale) -> Metrics:
    """A visitor for each request, whose certificate is renewed again and again meanwhile."""
    control = peer.control
    if not isinstance(control, Control) or control.authority is None:
        raise BenchmarkError(f"{peer.name} takes no certificates while it runs")
    endpoint = peer.endpoint("https")

    done: list[Handshakes] = []

    def run(count: int) -> None:
        for at in range(0, count, SLICE_COUNT):
            done.append(run_handshakes(
                peer, "--conns", str(scale.conn_count), "--count", str(min(SLICE_COUNT, count - at)),
                "--request", endpoint.host,
            ))

    first = max(1, scale.handshake_count // 100)
    run(first)
    renewed = _renew(peer, control, max(1, scale.renewal_count // 100))
    before = rest_rss_bytes(peer)
    count, over = [0], threading.Event()

    def renew() -> None:
        while not over.is_set() and renewed + count[0] < scale.renewal_count:
            count[0] += _renew(peer, control, 1)

    renewing = threading.Thread(target=renew, daemon=True)
    renewing.start()
    run(scale.handshake_count - first)
    while renewing.is_alive():          # a load for each of them
        run(first)
    over.set()
    renewing.join()
    after = rest_rss_bytes(peer)
    failed = sum(one.failed for one in done)
    return {
        **{f"{side}_growth_mb": (after[side] - before[side]) / MB for side in after},
        "handshakes": sum(one.count for one in done), "failed": failed, "renewals": renewed + count[0],
        **control.left_open(),
    }


def _renew(peer: RunningPeer, control: Control, count: int) -> int:
    """How many were seen in force."""
    endpoint = peer.endpoint("https")
    assert control.authority is not None
    for _ in range(count):
        chain = control.authority.put(control.data / CERTIFICATES / "benchmark", *HTTPS_NAMES)
        deadline = time.monotonic() + RENEWED_WITHIN_S
        while shown_der(endpoint.address, endpoint.port, endpoint.host) != leaf_der(chain):
            if time.monotonic() > deadline:
                raise BenchmarkError(f"a renewed certificate was not in force within {RENEWED_WITHIN_S:g} s")
            time.sleep(0.005)
    return count


def run_handshakes(peer: RunningPeer, *words: str) -> Handshakes:
    endpoint = peer.endpoint("https")
    with Room() as room:
        program = built(room, SOURCE, "ssl", "crypto", "pthread")
    done = run_load(
        [str(program), "--address", endpoint.address, "--port", str(endpoint.port), "--name", endpoint.host,
         "--threads", str(THREAD_COUNT), *words], within_s=600.0,
    )
    fields = done.stdout.split(maxsplit=5)
    if done.returncode != 0 or len(fields) < 5:
        raise BenchmarkError(f"tls_visitors: {(done.stderr or done.stdout).strip()}")
    count, failed, resumed = map(int, fields[:3])
    if count == 0:
        raise BenchmarkError(f"no handshake at all: {' '.join(fields[5:])}")
    return Handshakes(count, failed, resumed, float(fields[3]), float(fields[4]), " ".join(fields[5:]).strip())


@functools.cache
def tls_context() -> ssl.SSLContext:
    """Of a visitor who trusts whatever is shown. Made once: it costs more than a handshake."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def shown_der(address: str, port: int, name: str) -> bytes:
    """The certificate that a visitor of this name is shown; b"" for none."""
    try:
        with (
            socket.create_connection((address, port), timeout=10.0) as conn,
            tls_context().wrap_socket(conn, server_hostname=name) as visitor,
        ):
            return visitor.getpeercert(binary_form=True) or b""
    except (OSError, ssl.SSLError):
        return b""
