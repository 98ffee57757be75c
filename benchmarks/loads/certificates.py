"""Certificates by the ten thousand in the server's folder for them: until all are shown, what each takes, and one that
is renewed among them."""

from __future__ import annotations

import statistics
import threading
import time
from pathlib import Path

from benchmarks.certificate_pairs import Authority, leaf_der
from benchmarks.loads import Metrics
from benchmarks.loads.https import shown_der
from benchmarks.loads.memory import rest_rss_bytes
from benchmarks.peers import Endpoint, RunningPeer
from benchmarks.peers.spokes import CERTIFICATES, Control
from benchmarks.processes import BenchmarkError, wait_until
from benchmarks.scale import Scale
from spokes.control import CONTROL_SOCKET_NAME, call_control

SHOWN_WITHIN_S = 120.0
CHANGE_COUNT = 5
PING_INTERVAL_S = 0.01


def certificates(peer: RunningPeer, scale: Scale) -> Metrics:
    control = peer.control
    if not isinstance(control, Control):
        raise BenchmarkError(f"{peer.name} takes no certificates while it runs")
    endpoint, authority, count = peer.endpoint("https"), Authority(), scale.certificate_count
    names = [f"host-{number}.example.net" for number in range(count)]
    aside, folder = control.data / "aside", control.data / CERTIFICATES
    chains = [authority.put(aside / name, name) for name in names]
    before = rest_rss_bytes(peer)["server"]
    with Pings(control) as pings:
        began = time.monotonic()
        _move(aside, folder)
        for number in (0, count // 2, count - 1):
            _wait_until_shown(endpoint, names[number], chains[number])
        load_s = time.monotonic() - began
    each = (rest_rss_bytes(peer)["server"] - before) / count
    listed = call_control(control.data / CONTROL_SOCKET_NAME, "certificates")
    shown = [one for one in listed if one["state"] == "in use"]
    if len(shown) < count:
        raise BenchmarkError(f"{len(shown)} of {count} certificates are in use")
    changes = [_change_s(control, endpoint, authority, names[number % count]) for number in range(CHANGE_COUNT)]
    return {
        "load_s": load_s, "bytes_each": each, "change_s": statistics.median(changes),
        "event_loop_ms_max": pings.worst_ms,
    }


def _move(source: Path, target: Path) -> None:
    """All at once, as far as whoever looks can see."""
    for one in target.iterdir():
        one.rename(source / one.name)
    target.rmdir()
    source.rename(target)


def _change_s(control: Control, endpoint: Endpoint, authority: Authority, name: str) -> float:
    chain = authority.put(control.data / CERTIFICATES / name, name)
    began = time.monotonic()            # the server finds it by itself
    _wait_until_shown(endpoint, name, chain)
    return time.monotonic() - began


def _wait_until_shown(endpoint: Endpoint, name: str, chain: bytes) -> None:
    leaf = leaf_der(chain)
    wait_until(
        lambda: shown_der(endpoint.address, endpoint.port, name) == leaf, f"the certificate of {name} is shown",
        SHOWN_WITHIN_S,
    )


class Pings:
    """How long the server's event loop lets somebody wait, while this block lasts."""

    def __init__(self, control: Control) -> None:
        self._path = control.data / CONTROL_SOCKET_NAME
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.worst_ms = 0.0

    def __enter__(self) -> Pings:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(PING_INTERVAL_S):
            began = time.monotonic()
            call_control(self._path, "health")
            self.worst_ms = max(self.worst_ms, (time.monotonic() - began) * 1000)
