"""Alerts: raised once however often it is seen what is wrong, resolved when it is over, told by webhook and e-mail.

Owns: what is open, as far as this process knows; the store decides what is new.
Bound: one pending operation for each kind and subject waits for the store.
Fails: a store that fails is logged and asked again; an alert that it will never take is dropped, with a log line.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from spokes.server.base.set_aside import is_passing
from spokes.server.base.storethread import StoreThread
from spokes.server.base.worker_loop import run_when_woken
from spokes.store import Alert, Severity

log = logging.getLogger(__name__)

STORE_RETRY_S = 5.0
Listener = Callable[[Alert], None]


class PendingOperation(NamedTuple):
    """What an alert is to be; `severity` None: over."""

    severity: Severity | None
    text: str


class AlertBoard:
    """raise_() and settle() return at once and may be called as often as one likes."""

    def __init__(self, store: StoreThread) -> None:
        self._store = store
        self._open: dict[tuple[str, str], Severity] = {}
        self._pending: dict[tuple[str, str], PendingOperation] = {}
        self._woken = asyncio.Event()
        self._writing = asyncio.Lock()
        self.listeners: list[Listener] = []

    async def load(self) -> None:
        for alert in await self._store.run(lambda: self._store.store.alerts.select(open_only=True)):
            self._open[alert.kind, alert.subject] = alert.severity

    def is_open(self, kind: str, subject: str) -> bool:
        return (kind, subject) in self._open

    def subjects(self, kind: str) -> list[str]:
        """Of the open alerts of this kind."""
        return [subject for one, subject in self._open if one == kind]

    def open_counts(self) -> dict[tuple[str, Severity], int]:
        """How many stand, by kind and severity."""
        return Counter((kind, severity) for (kind, _), severity in self._open.items())

    def raise_(self, kind: str, subject: str, severity: Severity, text: str) -> None:
        """Does nothing while the same or a worse one stands."""
        if self._stands(kind, subject) not in (severity, Severity.CRITICAL):
            self._put(kind, subject, PendingOperation(severity, text))

    def settle(self, kind: str, subject: str) -> None:
        if self._stands(kind, subject) is not None:
            self._put(kind, subject, PendingOperation(None, ""))

    def _stands(self, kind: str, subject: str) -> Severity | None:
        """As it will be once everything is written: a write may be under way."""
        operation = self._pending.get((kind, subject))
        return operation.severity if operation is not None else self._open.get((kind, subject))

    def _put(self, kind: str, subject: str, operation: PendingOperation) -> None:
        self._pending[kind, subject] = operation
        self._woken.set()

    async def run(self) -> None:
        await run_when_woken(
            self._woken, self.flush, log=log, failed="alerts not written", retry_s=STORE_RETRY_S
        )

    async def flush(self) -> None:
        """Writes what is pending, and tells the listeners what is new. May be called while it runs."""
        async with self._writing:
            for (kind, subject), operation in list(self._pending.items()):
                try:
                    alert = await self._write(kind, subject, operation)
                except Exception as error:
                    if is_passing(error):
                        raise
                    log.exception("alert not written", extra={"kind": kind, "subject": subject})
                    alert = None
                if self._pending.get((kind, subject)) == operation:
                    del self._pending[kind, subject]
                if alert is not None:
                    self._tell(alert)

    async def _write(self, kind: str, subject: str, operation: PendingOperation) -> Alert | None:
        store = self._store.store
        if operation.severity is not None:
            alert = await self._store.run(store.alerts.open, kind, subject, operation.severity, operation.text)
            self._open[kind, subject] = operation.severity
        else:
            alert = await self._store.run(store.alerts.resolve, kind, subject)
            self._open.pop((kind, subject), None)
        return alert

    def _tell(self, alert: Alert) -> None:
        facts = {"kind": alert.kind, "subject": alert.subject, "severity": alert.severity.value, "detail": alert.text}
        log.warning("alert resolved" if alert.resolved else "alert raised", extra=facts)
        for listener in self.listeners:
            try:
                listener(alert)
            except Exception:
                log.exception("alert not told", extra=facts)
