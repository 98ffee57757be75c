"""Idle tunnels: what thousands of them cost one server in memory, processor time and SQL while heartbeats run."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator

from benchmarks.loads import Metrics
from benchmarks.loads.light_client import LightClient, Link, keep_alive
from benchmarks.loads.memory import rest_rss_bytes
from benchmarks.machine import REPOSITORY
from benchmarks.peers import RunningPeer
from benchmarks.peers.spokes import DOMAIN, PRESENCE_INTERVAL_S, Control
from benchmarks.processes import BenchmarkError, Process, stopping
from benchmarks.scale import Scale

PROCESS_COUNT = 2
LOGINS_AT_ONCE = 16
ONLINE_WITHIN_S = 900.0


def fleet(peer: RunningPeer, scale: Scale) -> Metrics:
    control = peer.control
    if not isinstance(control, Control):
        raise BenchmarkError(f"{peer.name} does not speak the link protocol")
    server = peer.processes["server"]
    fresh = rest_rss_bytes(peer)["server"]
    crews = [_start_crew(control, count) for count in _shares(scale.tunnel_count)]
    with stopping(crews[0]), stopping(crews[-1]):
        for crew in crews:
            _wait_for_line(crew, "registered")
        registered = rest_rss_bytes(peer)["server"]
        for crew in crews:
            _tell(crew, "log in")
        for crew in crews:
            _wait_for_line(crew, "online")
        after = rest_rss_bytes(peer)["server"]
        cpu_before_s, statements_before, started_s = server.cpu_s(), control.sql_statement_count(), time.monotonic()
        time.sleep(scale.heartbeat_s)           # the measurement itself: heartbeats for this long
        watched_s = time.monotonic() - started_s
        cpu_s = server.cpu_s() - cpu_before_s
        statements_after = control.sql_statement_count()
        lost = sum(count_lost(crew) for crew in crews)
    if lost:
        raise BenchmarkError(f"{lost} of {scale.tunnel_count} idle tunnels lost their link")
    metrics = {
        "bytes_per_tunnel": (after - fresh) / scale.tunnel_count,
        "bytes_per_session": (after - registered) / scale.tunnel_count,    # of these, what being on-line costs
        "cpu_percent_of_core": 100.0 * cpu_s / watched_s,
    }
    if statements_before is not None and statements_after is not None:
        statements_per_s = (statements_after - statements_before) / watched_s
        metrics["sql_statements_per_interval"] = statements_per_s * PRESENCE_INTERVAL_S
    return metrics


@contextlib.contextmanager
def online_fleet(control: Control, count: int) -> Iterator[list[Process]]:
    """So many tunnels on-line, each with its heartbeat, until the block is left."""
    crews = [_start_crew(control, share) for share in _shares(count)]
    with stopping(crews[0]), stopping(crews[-1]):
        for stage in ("registered", "online"):
            for crew in crews:
                _wait_for_line(crew, stage)
            if stage == "registered":
                for crew in crews:
                    _tell(crew, "log in")
        yield crews


def _shares(count: int) -> list[int]:
    first = count // PROCESS_COUNT
    return [first, count - first]


def _start_crew(control: Control, count: int) -> Process:
    crew = control.room.start(
        "fleet", [sys.executable, "-m", "benchmarks.loads.fleet"], env={"PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )
    # By standard input: a token has no place in argv.
    _tell(crew, json.dumps({
        "address": control.link_address, "port": control.link_port, "token": control.token, "count": count,
    }))
    return crew


def _tell(crew: Process, line: str) -> None:
    assert crew.popen.stdin
    try:
        crew.popen.stdin.write(line.encode() + b"\n")
        crew.popen.stdin.flush()
    except OSError:
        raise BenchmarkError(f"fleet process ended: {crew.last_words()}") from None


def _wait_for_line(crew: Process, wanted: str) -> list[str]:
    assert crew.popen.stdout
    words = crew.popen.stdout.readline().decode().split()
    if not words or words[0] != wanted:
        raise BenchmarkError(f"fleet process is not {wanted}: {crew.last_words()}")
    return words


def count_lost(crew: Process) -> int:
    _tell(crew, "count")
    return int(_wait_for_line(crew, "lost")[1])


async def _crew(task: dict[str, object]) -> None:
    """One process of the fleet: a line on standard output for each stage, a line on standard input starts the next."""
    client = LightClient(str(task["address"]), int(str(task["port"])), DOMAIN)
    gate = asyncio.Semaphore(LOGINS_AT_ONCE)

    async def register(index: int) -> str:
        async with gate:
            return await client.register(str(task["token"]), f"fleet {index}")

    async def log_in(key: str) -> Link:
        async with gate:
            link = await client.log_in(key)
            links.append(link)
            return link

    links: list[Link] = []
    async with asyncio.timeout(ONLINE_WITHIN_S):
        keys = await asyncio.gather(*map(register, range(int(str(task["count"])))))
        await _report("registered")
        heart = asyncio.create_task(keep_alive(links))
        await asyncio.gather(*map(log_in, keys))
    await _report("online")
    print("lost", sum(link.closed for link in links), flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    heart.cancel()


async def _report(stage: str) -> None:
    print(stage, flush=True)
    await asyncio.to_thread(sys.stdin.readline)


if __name__ == "__main__":
    asyncio.run(_crew(json.loads(sys.stdin.readline())))
