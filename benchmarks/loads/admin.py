"""The Admin API with a large store: every list and search alone, then all endpoints while the proxy is at its limit.

The calls that are paced come from this process and cost processor time of the same machine. So that the proxy's rate
without them is a fair one, the same number of small requests then goes to the upstream, past the proxy.
"""

from __future__ import annotations

import dataclasses
import http.client
import itertools
import json
import math
import random
import statistics
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks.loads import Metrics
from benchmarks.loads.api_client import V1, ApiClient, create_key
from benchmarks.loads.api_walk import COMPLETE_LISTS, walk
from benchmarks.loads.http import THREAD_COUNT, parse_rate, run_wrk
from benchmarks.loads.stored_fleet import StoredFleet, start_with_fleet
from benchmarks.peers import RunningPeer
from benchmarks.peers.spokes import Control
from benchmarks.processes import BenchmarkError
from benchmarks.scale import Scale

MB = 1_000_000
CALLS_PER_S = 50
WALKER_COUNT = 5                # each calls one after the other, ten in a second
PING_COUNT_MAX = 45
PHASE_COUNT = 3                 # with and without calls, in turn
Request = tuple[str, dict[str, Any] | None]


def admin_calls(peer: RunningPeer, scale: Scale) -> Metrics:
    control = control_of(peer)
    key, fleet = create_key(control), start_with_fleet(peer, scale.tunnel_count)
    metrics = _alone(ApiClient(control, key), fleet, scale)
    return metrics | _beside_full_load(peer, control, fleet, key, scale)


def control_of(peer: RunningPeer) -> Control:
    if not isinstance(peer.control, Control):
        raise BenchmarkError(f"{peer.name} has no Admin API")
    return peer.control


# --- alone ---------------------------------------------------------------------------------------------------------


def _alone(client: ApiClient, fleet: StoredFleet, scale: Scale) -> Metrics:
    """The slowest list, search and complete list: medians of repeated calls, nothing else running."""
    medians: dict[str, float] = {}
    kinds: defaultdict[str, list[float]] = defaultdict(list)
    for kind, name, (path, body) in _lists(client, fleet):
        rounds_ms = []
        for _ in range(scale.api_repeat_count):
            began = time.perf_counter()
            data = client.fetch(f"{V1}/{path}", body)
            rounds_ms.append((time.perf_counter() - began) * 1000)
        if not json.loads(data)["status"]:
            raise BenchmarkError(f"{path}: {data[:200]!r}")
        medians[name] = statistics.median(rounds_ms)
        kinds[kind].append(medians[name])
        note(f"    {name}: {medians[name]:.1f} ms, {client.answer_bytes / 1000:.0f} kB")
    return {f"{kind}_ms": max(values) for kind, values in kinds.items()}


def _lists(client: ApiClient, fleet: StoredFleet) -> Iterator[tuple[str, str, Request]]:
    page = client.call(f"{V1}/tunnel/list")["links"][-1]["uid"]
    user, last = fleet.user_uids[-1], len(fleet.tunnel_uids) - 1
    paths = (
        "tunnel/list", f"tunnel/page/{page}", "tunnel/list/online", "port/list", "token/registration/list", "user/list",
        f"user/tunnel/list/{user}", f"user/domain/list/{user}",
    )
    for path in paths:
        yield "list", path, (path, None)
    for words in (
        {"term": f"till {last}"}, {"term": f"shop{last}.example"}, {"term": "till"}, {"os": "linux", "version": "1."},
        {"term": "größe"}, {"term": "nothing of the kind"}, {"term": "100%_"},
    ):
        body = {"term": "", "os": "", "arch": "", "version": "", **words}
        yield "search", f"search {words}", ("tunnel/search", body)
    for path in COMPLETE_LISTS:
        yield "complete_list", path, (path, None)


# --- beside full load ----------------------------------------------------------------------------------------------


def _beside_full_load(
    peer: RunningPeer, control: Control, fleet: StoredFleet, key: str, scale: Scale
) -> Metrics:
    numbers = itertools.count()
    times = Times()

    def call_api(stop: threading.Event) -> None:
        walk_until(stop, control, fleet, key, numbers, times)

    def call_upstream(stop: threading.Event) -> None:
        endpoint = peer.endpoint("tcp")
        _ask_until(stop, endpoint.address, endpoint.port)

    server = peer.processes["server"]
    rates: defaultdict[bool, list[float]] = defaultdict(list)
    admin_cpu_s = 0.0
    for phase in range(2 * PHASE_COUNT):
        with_api = phase % 2 == 1
        before = server.child_cpu_s()
        rates[with_api].append(_full_load(peer, scale, call_api if with_api else call_upstream))
        if with_api:
            admin_cpu_s += server.child_cpu_s() - before
    count = sum(map(len, times.ms.values()))
    every = [one for values in times.ms.values() for one in values]
    worst = sorted(((percentile(values, 99), name) for name, values in times.ms.items()), reverse=True)
    for p99_ms, name in worst:
        values = times.ms[name]
        note(f"    {name}: p50 {percentile(values, 50):.1f}, p99 {p99_ms:.1f} ms of {len(values)}")
    return {
        "endpoint_p99_ms": worst[0][0], "all_p99_ms": percentile(every, 99), "all_p50_ms": percentile(every, 50),
        "calls_per_s": count / (scale.api_duration_s),
        "proxy_requests_per_s_with_api": statistics.median(rates[True]),
        "proxy_requests_per_s": statistics.median(rates[False]),
        "admin_cpu_ms_per_call": admin_cpu_s * 1000 / max(1, count),
        "admin_rss_mb": server.child_rss_bytes() / MB, "admin_pss_mb": server.child_pss_bytes() / MB,
    }


@dataclasses.dataclass
class Times:
    """Milliseconds of every call by endpoint."""

    ms: defaultdict[str, list[float]] = dataclasses.field(default_factory=lambda: defaultdict(list))


def _full_load(peer: RunningPeer, scale: Scale, caller: Callable[[threading.Event], None]) -> float:
    """wrk's rate through the tunnel while WALKER_COUNT callers are at work."""
    stop = threading.Event()
    with ThreadPoolExecutor(WALKER_COUNT) as pool:
        callers = [pool.submit(caller, stop) for _ in range(WALKER_COUNT)]
        try:
            text = run_wrk(
                peer, peer.endpoint("http"), conn_count=scale.conn_count, thread_count=THREAD_COUNT,
                duration_s=scale.api_duration_s / PHASE_COUNT,
            )
        finally:
            stop.set()
        for one in callers:
            one.result()
    return parse_rate(text)


class TokenBucket:
    """Turns at even distances. A turn that is missed is taken at once, and counts from when it was due."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._due_s = time.perf_counter() + interval_s * random.random()

    def wait(self, stop: threading.Event) -> float:
        """When this turn was due."""
        self._due_s += self._interval_s
        stop.wait(max(0.0, self._due_s - time.perf_counter()))
        return self._due_s


class _Stopped(Exception):
    """The load is over."""


def walk_until(
    stop: threading.Event, control: Control, fleet: StoredFleet, key: str, numbers: Iterator[int], times: Times
) -> None:
    client, pace = ApiClient(control, key), TokenBucket(WALKER_COUNT / CALLS_PER_S)

    def call(endpoint: str, rest: str = "", body: dict[str, Any] | None = None) -> dict[str, Any]:
        due_s = pace.wait(stop)
        if stop.is_set():
            raise _Stopped
        data = client.fetch(f"{V1}/{endpoint}{rest}", body)
        times.ms[endpoint].append((time.perf_counter() - due_s) * 1000)
        answer: dict[str, Any] = json.loads(data)
        if not answer["status"]:
            raise BenchmarkError(f"{endpoint}: {answer['error']}")
        return answer

    try:
        for _ in range(random.randrange(PING_COUNT_MAX)):       # walks that began together would stay in step
            call("ping")
        while True:
            walk(call, fleet, key, next(numbers))
    except _Stopped:
        return
    finally:
        client.close()


def _ask_until(stop: threading.Event, address: str, port: int) -> None:
    """The same pace, for what does not go through the proxy's administration."""
    pace = TokenBucket(WALKER_COUNT / CALLS_PER_S)
    conn = http.client.HTTPConnection(address, port, timeout=10.0)
    try:
        while True:
            pace.wait(stop)
            if stop.is_set():
                return
            conn.request("GET", "/", "null\n")
            conn.getresponse().read()
    finally:
        conn.close()


def percentile(values: list[float], percent: float) -> float:
    """The smallest value that so many percent of all do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)] if ordered else math.nan


def note(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
