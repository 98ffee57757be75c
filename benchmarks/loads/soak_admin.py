"""A small host's ordinary life: tunnels, traffic, calls to the API and a scraper, and memory that stays as it was."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from benchmarks.loads import Metrics
from benchmarks.loads.admin import MB, Times, control_of, walk_until
from benchmarks.loads.api_client import create_key
from benchmarks.loads.fleet import count_lost, online_fleet
from benchmarks.loads.http import parse_rate, run_wrk
from benchmarks.loads.stored_fleet import StoredFleet, start_with_fleet
from benchmarks.peers import RunningPeer
from benchmarks.peers.spokes import DOMAIN, Control
from benchmarks.peers.spokes_1gb import peak_bytes
from benchmarks.processes import BenchmarkError
from benchmarks.scale import Scale

SCRAPE_INTERVAL_S = 5.0
SLICE_S = 10.0
WARM_PART = 0.1                 # of the time: what is used once is not growth


def soak_admin(peer: RunningPeer, scale: Scale) -> Metrics:
    control, server = control_of(peer), peer.processes["server"]
    key, stored = create_key(control), start_with_fleet(peer, max(1, scale.soak_tunnel_count // 10))
    with online_fleet(control, scale.soak_tunnel_count) as crews:
        stop, times, scrapes = threading.Event(), Times(), itertools.count()
        with ThreadPoolExecutor(2) as pool:
            others = [
                pool.submit(_walk, stop, control, stored, key, times),
                pool.submit(_scrape_until, stop, control, key, lambda: next(scrapes)),
            ]
            try:
                rates, samples = _watch(peer, scale)
            finally:
                stop.set()
            for one in others:
                one.result()
        lost = sum(map(count_lost, crews))
    if lost:
        raise BenchmarkError(f"{lost} of {scale.soak_tunnel_count} tunnels lost their link")
    server.check()
    first, last = samples[0], samples[-1]
    metrics = {
        "server_growth_mb": (last[0] - first[0]) / MB, "admin_growth_mb": (last[1] - first[1]) / MB,
        "server_rss_mb": last[0] / MB, "admin_rss_mb": last[1] / MB,
        "admin_pss_mb": server.child_pss_bytes() / MB, "requests_per_s": sum(rates) / len(rates),
        "calls": float(sum(map(len, times.ms.values()))), "scrapes": float(next(scrapes)),
        "watched_s": scale.soak_s,
    }
    if control.memory_group:
        metrics["host_peak_mb"] = peak_bytes(control.memory_group) / MB
    return metrics


def _watch(peer: RunningPeer, scale: Scale) -> tuple[list[float], list[tuple[int, int]]]:
    """wrk slice by slice; after each, what the server and its administration hold. The first part is warming up."""
    server, rates, samples = peer.processes["server"], [], []
    began = time.monotonic()
    while (passed_s := time.monotonic() - began) < scale.soak_s:
        text = run_wrk(
            peer, peer.endpoint("http"), conn_count=scale.conn_count, thread_count=1,
            duration_s=min(SLICE_S, scale.soak_s / 4),
        )
        rates.append(parse_rate(text))
        if passed_s >= WARM_PART * scale.soak_s:
            samples.append((server.own_rss_bytes(), server.child_rss_bytes()))
    return rates, samples


def _walk(stop: threading.Event, control: Control, fleet: StoredFleet, key: str, times: Times) -> None:
    walk_until(stop, control, fleet, key, itertools.count(), times)


def _scrape_until(stop: threading.Event, control: Control, key: str, count: Callable[[], object]) -> None:
    while True:
        conn = http.client.HTTPConnection(control.link_address, control.http_port, timeout=10.0)
        with contextlib.closing(conn):
            conn.request("GET", "/metrics", headers={"Host": DOMAIN, "Authorization": f"Bearer {key}"})
            answer = conn.getresponse()
            if answer.status != 200 or b"spokes_tunnels_online" not in answer.read():
                raise BenchmarkError(f"/metrics answered {answer.status}")
        count()
        if stop.wait(SCRAPE_INTERVAL_S):
            return
