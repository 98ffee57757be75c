"""Health of the local services: the last outcome of each, read from the engine's counters four times a second.

Owns: the last reading of every route. Bound: one fault a service; one line a second for each, LINES_PER_CHECK_MAX lines
a check; the others wait and count on.
Fails: it cannot; a service that was never asked is not known to fail.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from spokes._fastpath.engine import FAULT_CODES, RouteKind
from spokes.errors import WebRootError
from spokes.wire.messages import FailingService, Health
from spokes.wire.rules import LIST_COUNT_MAX

log = logging.getLogger(__name__)

CHECK_INTERVAL_S = 0.25
REPEAT_S = 1.0  # between two lines, and two changes, of one service
LINES_PER_CHECK_MAX = 20
LOOP = "SPK-LOOP"
FAULT_WORDS = {
    "SPK-UPSTREAM-REFUSED": "refused the connection",
    "SPK-UPSTREAM-UNREACHABLE": "cannot be reached",
    "SPK-UPSTREAM-TIMEOUT": "did not answer in time",
    "SPK-UPSTREAM-NAME": "has a name without an address",
    "SPK-UPSTREAM-RESET": "broke the connection off before an answer",
    "SPK-UPSTREAM-CLOSED": "closed the connection before an answer",
    "SPK-UPSTREAM-BROKEN": "answered something that is not HTTP",
    "SPK-UPSTREAM-BODY": "answered with chunks that break HTTP",
    "SPK-UPSTREAM-TLS": "answered in TLS",
    "SPK-UPSTREAM-HEAD": "answered with a header that is too large",
    "SPK-UPSTREAM-CUT": "broke off in the middle of an answer",
    "SPK-LIMIT": "was not asked: no open files or ports are left here",
    LOOP: "leads back to this tunnel",
    WebRootError.code: "cannot be read",
}


class Outcomes(Protocol):
    """The engine's upstream, as far as it is read here."""

    def outcomes(self) -> tuple[int, float, list[int]]: ...
    def has_answered(self) -> bool: ...


class ServiceName(NamedTuple):
    """A site by its canonical domain, or a port by its number."""

    domain: str
    port: int

    def __str__(self) -> str:
        return self.domain or f"port {self.port}"


@dataclass(frozen=True, slots=True)
class Served:
    """A route that is in force: where it leads, and who counts there; None: nothing can."""

    upstream: str
    counter: Outcomes | None
    code: str = ""                       # why nothing can


@dataclass(frozen=True, slots=True)
class Fault:
    """The last outcome of a service that does not answer."""

    upstream: str
    code: str
    at: float                            # Unix time
    count: int                           # since it last answered, or since the start
    is_proved: bool = True               # False: of datagrams, where nobody knows whether the service takes any

    def words(self) -> str:
        at = time.strftime("%H:%M:%S", time.localtime(self.at))
        times = f", {self.count} times, last" if self.count > 1 else ","
        return f"failing: {fault_words(self.code)}{times} {at} [{self.code}]"


class HealthChange(NamedTuple):
    """A service began to fail, fails otherwise, or answers again (`fault` None)."""

    service: ServiceName
    fault: Fault | None

    def line(self) -> str:
        if self.fault is None:
            return f"Service {self.service} answers again"
        return f"Service {self.service} fails: {self.fault.upstream} {fault_words(self.fault.code)} [{self.fault.code}]"


def fault_words(code: str) -> str:
    return FAULT_WORDS.get(code, "fails")


def service_of(kind: int, key: str | int) -> ServiceName:
    return ServiceName("", key) if isinstance(key, int) else ServiceName(key, 0)


def kind_of(route: tuple[int, str | int]) -> RouteKind:
    return RouteKind(route[0])


def _other_transport(route: tuple[int, str | int]) -> tuple[int, str | int] | None:
    kind, key = route
    others = {int(RouteKind.TCP): int(RouteKind.UDP), int(RouteKind.UDP): int(RouteKind.TCP)}
    return (others[kind], key) if kind in others else None


@dataclass(slots=True)
class _Reading:
    """Of one route."""

    counter: Outcomes
    counts: list[int]
    count: int = 0                       # faults since it last answered
    fault: Fault | None = None
    has_answered: bool = False           # ever, at whichever addresses


class ServiceHealth:
    """The faults of all services, as of the last check."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.faults: Mapping[ServiceName, Fault] = {}
        self._clock = clock
        self._readings: dict[tuple[int, str | int], _Reading] = {}
        self._told: dict[ServiceName, Fault | None] = {}  # what its last change said
        self._changed_at: dict[ServiceName, float] = {}
        self._unsaid: dict[ServiceName, tuple[Fault, int]] = {}  # faults that wait for their line
        self._said_at: dict[ServiceName, float] = {}

    def check(self, served: Mapping[tuple[int, str | int], Served]) -> list[HealthChange]:
        """Read the counters; new faults go to the log, changes are returned. One line and one change a second for
        each service, whatever happens in it."""
        faults: dict[ServiceName, Fault] = {}
        found: list[tuple[tuple[int, str | int], Fault]] = []
        for route in self._readings.keys() - served.keys():
            del self._readings[route]
        for (kind, key), one in served.items():
            service = service_of(kind, key)
            if one.counter is None:
                fault = self._lasting(service, one)
            else:
                fault, latest, new_count = self._read((kind, key), one)
                if latest is not None and new_count:  # be it that it has answered meanwhile
                    self._unsaid[service] = (latest, new_count + self._unsaid.get(service, (latest, 0))[1])
            if fault is not None:
                found.append(((kind, key), fault))
        hidden = self._hidden(served)
        for route, fault in found:
            if route not in hidden and (fault.is_proved or service_of(*route) not in faults):
                faults[service_of(*route)] = fault
        self.faults = faults
        self._forget({service_of(*route) for route in served})
        self._say()
        return self._changes()

    def _hidden(self, served: Mapping[tuple[int, str | int], Served]) -> Set[tuple[int, str | int]]:
        """A port is open to TCP and datagrams alike, and few services take both: what one of the two never answered
        is nobody's fault where the other did; but a loop is what we found ourselves."""
        answered = {
            route for route in served if (reading := self._readings.get(route)) is not None and reading.has_answered
        }
        loops = {route for route, reading in self._readings.items() if reading.fault and reading.fault.code == LOOP}
        return {route for route in served.keys() - answered - loops if _other_transport(route) in answered}

    def _lasting(self, service: ServiceName, one: Served) -> Fault | None:
        """Of a directory: it is there, or not since it was first missed."""
        before = self.faults.get(service)
        if not one.code:
            return None
        if before is not None and before.code == one.code:
            return before
        return Fault(one.upstream, one.code, time.time(), 1)

    def _forget(self, services: Set[ServiceName]) -> None:
        """What is known of services that are no more."""
        for known in (self._told, self._changed_at, self._unsaid, self._said_at):
            for service in known.keys() - services:
                del known[service]

    def _read(self, route: tuple[int, str | int], one: Served) -> tuple[Fault | None, Fault | None, int]:
        """The route's fault if it failed last, the latest one, and how many came since the last check."""
        assert one.counter is not None
        last, at, counts = one.counter.outcomes()
        reading = self._readings.get(route)
        if reading is None:
            reading = self._readings[route] = _Reading(one.counter, [0] * len(counts))
        elif reading.counter is not one.counter:  # other addresses: it counts from nothing
            reading.counter, reading.counts = one.counter, [0] * len(counts)
        reading.has_answered |= one.counter.has_answered()
        new = [count - before for count, before in zip(counts, reading.counts, strict=True)]
        reading.counts = counts
        if not at:  # not asked since its addresses changed: what was known stays
            return reading.fault, None, 0
        latest = last or max(range(len(new)), key=new.__getitem__)
        code = FAULT_CODES[latest]
        is_proved = kind_of(route) is not RouteKind.UDP or reading.has_answered or code == LOOP
        fault = Fault(one.upstream, code, at, max(1, reading.count + sum(new)), is_proved)
        reading.count = fault.count if last else 0
        reading.fault = fault if last else None
        return reading.fault, fault, sum(new)

    def _changes(self) -> list[HealthChange]:
        now = self._clock()
        changes = []
        for service in self.faults.keys() | self._told.keys():
            fault, told = self.faults.get(service), self._told.get(service)
            if (fault.code if fault else "") == (told.code if told else ""):
                continue
            if now - self._changed_at.get(service, -REPEAT_S) < REPEAT_S:
                continue
            self._changed_at[service] = now
            self._told[service] = fault
            changes.append(HealthChange(service, fault))
        return sorted(changes, key=lambda change: change.service)

    def _say(self) -> None:
        """How many faults more each line stands for is in it."""
        now = self._clock()
        due = [service for service in self._unsaid if now - self._said_at.get(service, -REPEAT_S) >= REPEAT_S]
        for service in due[:LINES_PER_CHECK_MAX]:
            fault, count = self._unsaid.pop(service)
            self._said_at[service] = now
            log.warning(
                "service failed",
                extra={
                    "service": str(service),
                    "upstream": fault.upstream,
                    "cause": fault_words(fault.code),
                    "code": fault.code,
                    "left_out": count - 1,
                },
            )

    def message(self) -> Health:
        """What the server is told."""
        return Health(
            failing=tuple(
                FailingService(domain=service.domain, port=service.port, code=fault.code)
                for service, fault in sorted(self.faults.items())[:LIST_COUNT_MAX]
                if fault.is_proved
            )
        )
