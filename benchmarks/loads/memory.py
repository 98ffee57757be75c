"""Resident memory of a peer's processes, read when it has come to rest."""

from __future__ import annotations

import time

from benchmarks.peers import RunningPeer

_SAMPLE_INTERVAL_S = 0.25
_REST_SAMPLE_COUNT = 4
_REST_WITHIN_S = 15.0


def rest_rss_bytes(peer: RunningPeer) -> dict[str, int]:
    """Resident bytes by side once they moved by less than 0.1 % over a second (or will not rest within 15 s)."""
    deadline = time.monotonic() + _REST_WITHIN_S
    samples: list[dict[str, int]] = []
    while True:
        samples.append({side: process.rss_bytes() for side, process in peer.processes.items()})
        recent = samples[-_REST_SAMPLE_COUNT:]
        if len(recent) == _REST_SAMPLE_COUNT and all(
            max(values) - min(values) <= max(values) // 1000
            for values in ([sample[side] for sample in recent] for side in peer.processes)
        ):
            break
        if time.monotonic() > deadline:
            break
        time.sleep(_SAMPLE_INTERVAL_S)
    return samples[-1]
