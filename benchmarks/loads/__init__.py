"""What is done to a peer: functions `(peer, scale) -> {metric: value}`, units last in a metric's name."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.peers import RunningPeer
from benchmarks.scale import Scale

Metrics = dict[str, float]
Load = Callable[[RunningPeer, Scale], Metrics]
