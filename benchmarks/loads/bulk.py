"""iperf3: one stream through a TCP port, up (visitor to upstream) and down."""

from __future__ import annotations

import json

from benchmarks.loads import Metrics
from benchmarks.peers import RunningPeer
from benchmarks.processes import BenchmarkError, find_program, run_load, wait_until
from benchmarks.scale import Scale

BUSY = "the server is busy"


def bulk(peer: RunningPeer, scale: Scale) -> Metrics:
    return {"up_gbit_per_s": _run(peer, scale, down=False), "down_gbit_per_s": _run(peer, scale, down=True)}


def _run(peer: RunningPeer, scale: Scale, *, down: bool) -> float:
    program = find_program("iperf3")
    endpoint = peer.endpoint("bulk")
    argv = [*peer.visitor_prefix, program, "--client", endpoint.address, "--port", str(endpoint.port),
            "--time", str(max(1, round(scale.duration_s))), "--json"]
    if down:
        argv.append("--reverse")
    answers: list[str] = []

    def was_served() -> bool:
        """iperf3 serves one test at a time, and may not have let go of the one before."""
        answers.append(run_load(argv, within_s=scale.duration_s + 60).stdout)
        return BUSY not in answers[-1]

    wait_until(was_served, "iperf3 is free", within_s=10.0)
    return parse_gbit_per_s(answers[-1])


def parse_gbit_per_s(text: str) -> float:
    """What arrived, not what was sent."""
    try:
        answer = json.loads(text)
    except ValueError:
        raise BenchmarkError(f"iperf3 said no JSON: {text[-300:]}") from None
    if "error" in answer:
        raise BenchmarkError(f"iperf3: {answer['error']}")
    return float(answer["end"]["sum_received"]["bits_per_second"]) / 1e9
