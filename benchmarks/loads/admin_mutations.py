"""A hundred mutations in a second while a webhook is told of each: none is lost, and each service's are in order."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks.loads import Metrics
from benchmarks.loads.admin import TokenBucket, control_of, percentile
from benchmarks.loads.api_client import OWN, V1, ApiClient, create_key
from benchmarks.loads.stored_fleet import start_with_fleet
from benchmarks.peers import RunningPeer
from benchmarks.processes import free_port, wait_until
from benchmarks.scale import Scale

MUTATIONS_PER_S = 100
CALLER_COUNT = 4
SERVICE_COUNT = 50              # whose rules are changed again and again
ALL_TOLD_WITHIN_S = 60.0


def admin_mutations(peer: RunningPeer, scale: Scale) -> Metrics:
    control = control_of(peer)
    key, fleet = create_key(control), start_with_fleet(peer, scale.tunnel_count)
    tunnels = fleet.tunnel_uids[:SERVICE_COUNT]
    count = max(CALLER_COUNT, round(MUTATIONS_PER_S * scale.mutation_s))
    with receiving() as receiver:
        client = ApiClient(control, key)
        client.call(f"{OWN}/webhook/create", {
            "url": receiver.url, "kinds": ["site"], "allowPrivate": True, "description": "benchmark",
        })
        server = peer.processes["server"]
        cpu_before_s, began = server.cpu_s(), time.perf_counter()
        shares = [(index, count // CALLER_COUNT) for index in range(CALLER_COUNT)]
        with ThreadPoolExecutor(CALLER_COUNT) as pool:
            callers = [
                pool.submit(_mutate, ApiClient(control, key), tunnels[index::CALLER_COUNT] or tunnels[:1], share, index)
                for index, share in shares
            ]
            times_ms = [one for caller in callers for one in caller.result()]
        mutated_s, made = time.perf_counter() - began, len(times_ms)
        with contextlib.suppress(Exception):        # what is missing then is the result
            wait_until(lambda: receiver.count >= made, "webhooks are told", ALL_TOLD_WITHIN_S)
        told_s = time.perf_counter() - began
        return {
            "mutations_per_s": made / mutated_s, "mutation_p99_ms": percentile(times_ms, 99),
            "deliveries_missing": float(max(0, made - receiver.count)),
            "deliveries_out_of_order": float(receiver.out_of_order),
            "told_after_s": max(0.0, told_s - mutated_s),
            "cpu_ms_per_mutation": (server.cpu_s() - cpu_before_s) * 1000 / made,
        }


def _mutate(client: ApiClient, tunnels: list[str], count: int, caller: int) -> list[float]:
    """Changes one rule after the other; the upstream's port counts the changes of its service."""
    pace, never, times_ms = TokenBucket(CALLER_COUNT / MUTATIONS_PER_S), threading.Event(), []
    for number in range(count):
        due_s = pace.wait(never)
        index = number % len(tunnels)
        site = {"domain": f"m{caller}-{index}.example.net", "destination": "127.0.0.1",
                "port": 1 + number // len(tunnels)}
        client.call(f"{V1}/tunnel/traffic/http/update/{tunnels[index]}", {"sites": [site]})
        times_ms.append((time.perf_counter() - due_s) * 1000)
    client.close()
    return times_ms


# --- who is told ---------------------------------------------------------------------------------------------------


class Receiver:
    """Takes deliveries and holds each service's against the order of its changes. One event may come twice."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/"
        self.count = 0
        self.out_of_order = 0
        self._seen: set[str] = set()
        self._latest: defaultdict[str, int] = defaultdict(int)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if line)
                self._take(json.loads(await reader.readexactly(int(fields[b"content-length"]))))
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                await writer.drain()
        writer.close()

    def _take(self, event: dict[str, Any]) -> None:
        if event["id"] in self._seen:
            return
        self._seen.add(event["id"])
        self.count += 1
        site = event["object"]
        place = int(site["rule"]["port"])
        if place < self._latest[site["uid"]]:
            self.out_of_order += 1
        self._latest[site["uid"]] = max(place, self._latest[site["uid"]])


@contextlib.contextmanager
def receiving() -> Iterator[Receiver]:
    """A receiver on a thread of its own."""
    port = free_port()
    receiver, loop, ready = Receiver(port), asyncio.new_event_loop(), threading.Event()

    async def serve() -> None:
        server = await asyncio.start_server(receiver.serve, "127.0.0.1", port)
        ready.set()
        async with server:
            await stopped.wait()

    stopped = asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), name="receiver")
    thread.start()
    try:
        ready.wait(10.0)
        yield receiver
    finally:
        loop.call_soon_threadsafe(stopped.set)
        thread.join()
        loop.close()
