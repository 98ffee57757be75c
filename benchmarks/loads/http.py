"""wrk: requests on kept conns, a conn per request, and the latency of one conn."""

from __future__ import annotations

import re

from benchmarks.loads import Metrics
from benchmarks.peers import Endpoint, RunningPeer
from benchmarks.processes import BenchmarkError, find_program, run_load
from benchmarks.scale import Scale

THREAD_COUNT = 2
_UNIT_MS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}


def http_keepalive(peer: RunningPeer, scale: Scale) -> Metrics:
    return _throughput(peer, "http", scale)


def http_close(peer: RunningPeer, scale: Scale) -> Metrics:
    return _throughput(peer, "http", scale, close=True)


def tcp_keepalive(peer: RunningPeer, scale: Scale) -> Metrics:
    return _throughput(peer, "tcp", scale)


def latency(peer: RunningPeer, scale: Scale) -> Metrics:
    text = run_wrk(peer, peer.endpoint("http"), conn_count=1, thread_count=1, duration_s=scale.duration_s)
    return {"p50_ms": parse_percentile_ms(text, 50), "p99_ms": parse_percentile_ms(text, 99)}


def _throughput(peer: RunningPeer, service: str, scale: Scale, *, close: bool = False) -> Metrics:
    text = run_wrk(
        peer, peer.endpoint(service), conn_count=scale.conn_count, thread_count=THREAD_COUNT,
        duration_s=scale.duration_s, close=close,
    )
    return {"requests_per_s": parse_rate(text), "p99_ms": parse_percentile_ms(text, 99)}


def run_wrk(
    peer: RunningPeer, endpoint: Endpoint, *, conn_count: int, thread_count: int, duration_s: float,
    close: bool = False,
) -> str:
    """Its output, once it is clear that every answer was a good one."""
    argv = [*peer.visitor_prefix, find_program("wrk"), "--latency", "--timeout", "10s", "-t", str(thread_count),
            "-c", str(conn_count), "-d", f"{max(1, round(duration_s))}s"]
    if endpoint.host:
        argv += ["-H", f"Host: {endpoint.host}"]
    if close:
        argv += ["-H", "Connection: close"]
    done = run_load([*argv, endpoint.url], within_s=duration_s + 60)
    if done.returncode != 0:
        raise BenchmarkError(f"wrk: {(done.stderr or done.stdout).strip()}")
    check_answers(done.stdout)
    return done.stdout


def check_answers(text: str) -> None:
    """Raise when requests failed: a fast error is no result."""
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    if bad:
        raise BenchmarkError(f"{bad[1]} of {parse_count(text)} answers were errors")
    failed = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    if failed and any(int(count) for count in failed.groups()):
        raise BenchmarkError(f"{failed[0]} beside {parse_count(text)} answers")
    if parse_count(text) == 0:
        raise BenchmarkError("no answer at all")


def parse_rate(text: str) -> float:
    return float(_find(r"Requests/sec:\s+([\d.]+)", text)[1])


def parse_count(text: str) -> int:
    return int(_find(r"(\d+) requests in", text)[1])


def parse_percentile_ms(text: str, percent: int) -> float:
    found = _find(rf"^\s+{percent}%\s+([\d.]+)(us|ms|s|m) *$", text)
    return float(found[1]) * _UNIT_MS[found[2]]


def _find(pattern: str, text: str) -> re.Match[str]:
    found = re.search(pattern, text, re.MULTILINE)
    if not found:
        raise BenchmarkError(f"wrk said nothing like {pattern!r}: {text.strip()[-300:]}")
    return found
