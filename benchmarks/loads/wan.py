"""A download over a long lossy path or a slow line, and small requests without it and beside it."""

from __future__ import annotations

import subprocess

from benchmarks.loads import Metrics
from benchmarks.loads.http import parse_percentile_ms, run_wrk
from benchmarks.peers import RunningPeer
from benchmarks.processes import BenchmarkError, find_program, run_load
from benchmarks.scale import Scale
from benchmarks.upstream import ENDLESS_PATH

SMALL_CONN_COUNT = 4
_TIME_IS_UP = 28            # curl's exit status


def wan(peer: RunningPeer, scale: Scale) -> Metrics:
    alone_p99_ms, beside_p99_ms = _alone_and_beside_ms(peer, scale, percentile=99)
    return {
        "download_mbit_per_s": _download_mbit_per_s(peer, scale.wan_duration_s),
        "alone_p99_ms": alone_p99_ms, "beside_download_p99_ms": beside_p99_ms,
    }


def slow_line(peer: RunningPeer, scale: Scale) -> Metrics:
    alone_p50_ms, beside_p50_ms = _alone_and_beside_ms(peer, scale, percentile=50, conn_count=1)
    return {"alone_p50_ms": alone_p50_ms, "beside_download_p50_ms": beside_p50_ms}


def _alone_and_beside_ms(
    peer: RunningPeer, scale: Scale, *, percentile: int, conn_count: int = SMALL_CONN_COUNT,
) -> tuple[float, float]:
    alone_ms = _small_requests_ms(peer, scale.wan_duration_s, percentile, conn_count)
    # Longer than the small requests beside it, so that the path is never theirs alone.
    argv = [*peer.visitor_prefix, *_download_argv(peer, 2 * scale.wan_duration_s + 5.0)]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as download:
        try:
            beside_ms = _small_requests_ms(peer, scale.wan_duration_s, percentile, conn_count)
            if download.poll() is not None:
                raise BenchmarkError("the download ended before the small requests beside it")
        finally:
            download.kill()
    return alone_ms, beside_ms


def _small_requests_ms(peer: RunningPeer, duration_s: float, percentile: int, conn_count: int) -> float:
    text = run_wrk(peer, peer.endpoint("http"), conn_count=conn_count, thread_count=1, duration_s=duration_s)
    return parse_percentile_ms(text, percentile)


def _download_argv(peer: RunningPeer, within_s: float) -> list[str]:
    """curl with a file that is longer than its time."""
    endpoint = peer.endpoint("http")
    return [
        find_program("curl"), "--silent", "--show-error", "--fail", "--max-time", f"{within_s:g}",
        "--output", "/dev/null",
        "--header", f"Host: {endpoint.host or endpoint.address}", "--write-out", "%{size_download}",
        endpoint.url + ENDLESS_PATH,
    ]


def _download_mbit_per_s(peer: RunningPeer, duration_s: float) -> float:
    """Goodput of one conn over this time, its start included."""
    argv = [*peer.visitor_prefix, *_download_argv(peer, duration_s)]
    done = run_load(argv, within_s=duration_s + 60)
    if done.returncode != _TIME_IS_UP:
        raise BenchmarkError(f"curl: status {done.returncode} {done.stderr.strip()}")
    return int(done.stdout) * 8 / 1e6 / duration_s
