"""Events for webhooks: made of committed changes, of services that come and go, and of alerts.

Owns: its own place in the change log, kept in the store, so that changes made while no server ran are told too. An
event may be queued twice when the server is killed in between; its id is the same then.
Bound: MOVE_COUNT_MAX moves and ALERT_COUNT_MAX alerts wait; beyond that the oldest are lost, with a line in the log.
Fails: a store that fails is logged and asked again. What cannot be told is set aside and reported; the rest is told.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec
from msgspec import UNSET

from spokes import clock
from spokes.errors import InternalError
from spokes.ids import ZERO_UID, new_uid
from spokes.model import api_objects
from spokes.model.api_objects import Tunnel as TunnelObject
from spokes.model.webhook import TEST_KIND, Event, ServiceEvent, encode, wants
from spokes.redaction import redacted
from spokes.server.base.set_aside import SetAside, Subject, is_passing
from spokes.server.base.storethread import StoreThread
from spokes.server.base.worker_loop import run_when_woken
from spokes.server.routing.availability import ServiceMove
from spokes.server.routing.users import Users
from spokes.server.sessions.registry import Registry
from spokes.store import Alert, Change, Kind, NewDelivery, Op, Store, Tunnel, TunnelState, Usage, Webhook

log = logging.getLogger(__name__)

T = TypeVar("T")

CONSUMER = "webhooks"
BATCH_COUNT_MAX = 500
MOVE_COUNT_MAX = 100_000
ALERT_COUNT_MAX = 1_000
GATHER_S = 0.05  # what comes together is queued in one transaction
STORE_RETRY_S = 1.0
EVENT_BYTES_MAX = 16 * 1024  # each webhook keeps its own copy; what is larger names the object alone
OFFSET_INTERVAL_S = 10.0  # how often the place is written while nobody is to be told
_OF_TUNNELS = frozenset({Kind.AUTH_TOKEN, Kind.SITE, Kind.PORT, Kind.PORTMAP})
_IDENTIFYING = ("uid", "tunnel_uid", "user_uid", "domain", "port", "listen_port", "transport", "name", "hostname")
_ZERO_TIME = dt.datetime(1, 1, 1, tzinfo=dt.UTC)


class ChangedObject(NamedTuple):
    """A change, the object as it is or last was, and whose it is."""

    change: Change
    body: Mapping[str, Any]
    owner_uid: str


class WebhookEvents:
    """run() feeds the queue of deliveries; the rest returns at once."""

    def __init__(
        self, store: StoreThread, users: Users, registry: Registry, *, on_queued: Callable[[], None]
    ) -> None:
        self._store = store
        self._users = users
        self._registry = registry
        self._on_queued = on_queued
        self._epoch = self._seq = 0
        self._offset_written_at = 0.0
        self._moves: deque[ServiceMove] = deque(maxlen=MOVE_COUNT_MAX)
        self._alerts: deque[Alert] = deque(maxlen=ALERT_COUNT_MAX)
        self._woken = asyncio.Event()
        self._queueing = asyncio.Lock()
        self.set_aside: SetAside[None] = SetAside("event")

    async def load(self) -> None:
        """Where it was; at first, or after a restore, from now on."""
        store = self._store.store
        self._epoch, seq = await self._store.run(store.changes.position)
        offset = await self._store.run(store.consumer_offsets.read, CONSUMER)
        self._seq = offset[1] if offset is not None and offset[0] == self._epoch else seq
        if offset is None or offset[0] != self._epoch:
            await self.flush()
        self._woken.set()

    def wake(self) -> None:
        """There may be changes."""
        self._woken.set()

    def services_moved(self, moves: Iterable[ServiceMove]) -> None:
        for move in moves:
            if len(self._moves) == MOVE_COUNT_MAX:
                log.warning("service events lost", extra={"tunnel_uid": self._moves[0].tunnel_uid})
            self._moves.append(move)
        self._woken.set()

    def alert_changed(self, alert: Alert) -> None:
        self._alerts.append(alert)
        self._woken.set()

    async def queue_test(self, webhook_uid: str) -> None:
        """A delivery that says nothing but that it arrives, whatever kinds the webhook wants."""
        webhook = await self._store.run(self._store.store.webhooks.get, webhook_uid)
        event = Event(id=new_uid(), kind=TEST_KIND, time=_time(clock.wall_s()), object={"webhook_uid": webhook.uid})
        await self._queue([NewDelivery(webhook_uid=webhook.uid, kind=TEST_KIND, body=encode(event))])

    async def run(self) -> None:
        await run_when_woken(
            self._woken, self.catch_up, log=log, failed="events not queued", retry_s=STORE_RETRY_S, gather_s=GATHER_S
        )

    async def catch_up(self) -> None:
        """Returns when everything that happened before the call is queued. May be called while it runs."""
        async with self._queueing:
            store = self._store.store
            webhooks = [webhook for webhook in await self._store.run(store.webhooks.select) if webhook.active]
            await self._queue_moves(webhooks)
            await self._queue_alerts(webhooks)
            await self._queue_changes(webhooks)

    async def _queue_changes(self, webhooks: list[Webhook]) -> None:
        store, told = self._store.store, False
        while batch := await self._store.run(store.changes.after, self._seq, BATCH_COUNT_MAX):
            if webhooks:
                told = await _all_or_each(lambda some: self._queue_some(some, webhooks), batch, self._aside) or told
            self._seq = batch[-1].seq
        # Without a place that was written, what nobody wanted to know is read again: no harm, so not each
        # mutation costs one more.
        if told or clock.monotonic_s() - self._offset_written_at >= OFFSET_INTERVAL_S:
            await self.flush()

    async def _queue_some(self, changes: Sequence[Change], webhooks: list[Webhook]) -> bool:
        """Whether anybody is told of them."""
        told_of = await self._store.run(_with_objects, self._store.store, changes)
        new = [one for change in told_of for one in self._of_change(change, webhooks)]
        await self._queue(new)
        if self.set_aside:
            for change in changes:
                self.set_aside.settle(Subject(change.kind, change.uid))
            self.set_aside.settle_more()
        return bool(new)

    def _aside(self, change: Change, error: Exception) -> None:
        self.set_aside.put(Subject(change.kind, change.uid), None, error)

    async def flush(self) -> None:
        """Writes the place."""
        self._offset_written_at = clock.monotonic_s()
        await self._store.run(self._store.store.consumer_offsets.write, CONSUMER, self._epoch, self._seq)

    def _of_change(self, told_of: ChangedObject, webhooks: list[Webhook]) -> list[NewDelivery]:
        change, plain, owner = told_of
        webhooks = [one for one in webhooks if one.created <= change.time]  # nobody is told of what was before them
        if not webhooks:
            return []
        kind = f"{change.kind}.{_verb(change)}"
        event = Event(
            id=hashlib.sha256(f"{change.epoch}.{change.seq}".encode()).hexdigest()[:32],
            kind=kind,
            time=_time(change.time),
            object=redacted(plain),
        )
        body = encode(event)
        if len(body) > EVENT_BYTES_MAX:
            short = {name: event.object[name] for name in _IDENTIFYING if name in event.object}
            body = encode(msgspec.structs.replace(event, object=short | {"truncated": True}))
        return _deliveries(webhooks, kind, owner, subject=change.uid, body=body)

    async def _queue_alerts(self, webhooks: list[Webhook]) -> None:
        alerts = list(self._alerts)
        await _all_or_each(lambda some: self._queue(self._of_alerts(some, webhooks)), alerts, _lost)
        for _ in alerts:
            self._alerts.popleft()

    def _of_alerts(self, alerts: Iterable[Alert], webhooks: list[Webhook]) -> list[NewDelivery]:
        new: list[NewDelivery] = []
        for alert in alerts:
            kind = "alert.resolved" if alert.resolved is not None else "alert.raised"
            event = Event(
                id=hashlib.sha256(f"{alert.uid}.{kind}.{alert.severity}".encode()).hexdigest()[:32],
                kind=kind,
                time=_time(alert.resolved or alert.raised),
                object={
                    "uid": alert.uid,
                    "kind": alert.kind,
                    "subject": alert.subject,
                    "severity": alert.severity.value,
                    "text": alert.text,
                },
            )
            owner = alert.subject if alert.kind == "bandwidth" else self._users.owner(alert.subject)
            # A webhook that fails is not told of it by itself: that would only make its queue longer.
            others = [one for one in webhooks if not (alert.kind == "webhook" and one.uid == alert.subject)]
            new += _deliveries(others, kind, owner, subject="", body=encode(event))
        return new

    async def _queue_moves(self, webhooks: list[Webhook]) -> None:
        while self._moves:
            moves = [self._moves[index] for index in range(min(len(self._moves), BATCH_COUNT_MAX))]
            if any(wants(one.kinds, _service_kind(move)) for one in webhooks for move in moves):
                await _all_or_each(lambda some: self._queue_some_moves(some, webhooks), moves, _lost)
            for _ in moves:
                self._moves.popleft()

    async def _queue_some_moves(self, moves: Sequence[ServiceMove], webhooks: list[Webhook]) -> bool:
        since = {move.tunnel_uid: self._since(move.tunnel_uid) for move in moves}
        return await self._queue(await self._store.run(_of_moves, self._store.store, moves, since, webhooks))

    def _since(self, tunnel_uid: str) -> clock.Since | None:
        session = self._registry.get(tunnel_uid)
        return session.since if session is not None else None

    async def _queue(self, new: list[NewDelivery]) -> bool:
        """Whether there was anything to queue."""
        if new:
            await self._store.run(self._store.store.deliveries.queue, new)
            self._on_queued()
        return bool(new)


async def _all_or_each(
    queue: Callable[[Sequence[T]], Awaitable[bool]], items: Sequence[T], on_bad: Callable[[T, Exception], None]
) -> bool:
    """Queues all at once, or where one of them cannot be told, each by itself; whether anybody is told of any."""
    if not items:
        return False
    try:
        return await queue(items)
    except Exception as error:
        if is_passing(error):
            raise
        if len(items) == 1:
            on_bad(items[0], error)
            return False
    told = False
    for item in items:
        told = await _all_or_each(queue, [item], on_bad) or told
    return told


def _lost(item: Alert | ServiceMove, error: Exception) -> None:
    log.error("event lost", extra={"item": repr(item)[:200]}, exc_info=error)


def _with_objects(store: Store, batch: Sequence[Change]) -> list[ChangedObject]:
    """On the store's thread. What was deleted is told, and to its owner, as it was last; so the owner is asked of the
    store, where deleted tunnels stay: the routes and owners in force may be ahead of the place in the log."""
    before = store.changes.bodies_before(change for change in batch if change.op is Op.DEL)
    objects = [(change, change.body or before.get(change.seq) or {"uid": change.uid}) for change in batch]
    uids = {str(body.get("tunnel_uid", "")) for change, body in objects if change.kind in _OF_TUNNELS}
    owners = {tunnel.uid: tunnel.user_uid for tunnel in store.tunnels.get_many(sorted(uids))} if uids else {}
    told_of = []
    for change, body in objects:
        if change.op is Op.PUT and change.body is None:
            raise InternalError(f"change {change.seq} cannot be read")
        if change.kind == Kind.USER:
            owner = change.uid
        elif change.kind in _OF_TUNNELS:
            owner = owners.get(str(body.get("tunnel_uid", "")), ZERO_UID)
        else:
            owner = str(body.get("user_uid", ZERO_UID))
        told_of.append(ChangedObject(change, body, owner))
    return told_of


def _verb(change: Change) -> str:
    body = change.body
    if change.op is Op.DEL or body is None or body.get("deleted_at") is not None:
        return "deleted"
    return "created" if body.get("created") == body.get("modified") == change.time else "changed"


def _service_kind(move: ServiceMove) -> str:
    return "service.up" if move.available else "service.down"


def _deliveries(
    webhooks: Iterable[Webhook], kind: str, owner_uid: str, *, subject: str, body: str
) -> list[NewDelivery]:
    """One for each webhook that wants it: the system's are told of everything, a user's of what is theirs."""
    return [
        NewDelivery(webhook_uid=webhook.uid, kind=kind, subject=subject, body=body)
        for webhook in webhooks
        if webhook.user_uid in (ZERO_UID, owner_uid) and wants(webhook.kinds, kind)
    ]


def _of_moves(
    store: Store, moves: Sequence[ServiceMove], since: Mapping[str, clock.Since | None], webhooks: list[Webhook]
) -> list[NewDelivery]:
    """On the store's thread: three reads for the batch, whatever its size."""
    now, uids = clock.wall_s(), list(dict.fromkeys(move.tunnel_uid for move in moves))
    tunnels = {tunnel.uid: tunnel for tunnel in store.tunnels.get_many(uids)}
    sites = {(site.tunnel_uid, site.domain): site for site in store.sites.select(uids)}
    ports = {(port.tunnel_uid, port.port): port for port in store.ports.select(uids)}
    of_tunnels, of_services = store.traffic.usage_of_tunnels(uids, now), store.traffic.usage_of_services(uids, now)
    new: list[NewDelivery] = []
    for move in moves:
        tunnel = tunnels.get(move.tunnel_uid)
        site = sites.get((move.tunnel_uid, move.key.domain))
        port = ports.get((move.tunnel_uid, move.key.port))
        if tunnel is None or (site is None and port is None):
            continue  # deleted with its rule: the change itself is told
        service = site or port
        assert service is not None
        uid, usage = service.uid, of_services.get(service.uid)
        event = ServiceEvent(
            tunnel=_tunnel_object(tunnel, since[tunnel.uid], of_tunnels.get(tunnel.uid), now),
            http=api_objects.site_object(site, tunnel, is_active=True, is_available=move.available, usage=usage)
            if site is not None
            else UNSET,
            port=api_objects.port_object(port, tunnel, is_active=True, is_available=move.available, usage=usage)
            if site is None and port is not None
            else UNSET,
            available=move.available,
            timestamp=_time(move.at),
        )
        new += _deliveries(webhooks, _service_kind(move), tunnel.user_uid, subject=uid, body=encode(event))
    return new


def _tunnel_object(tunnel: Tunnel, since: clock.Since | None, usage: Usage | None, now: float) -> TunnelObject:
    """What is live comes from here; the store is told of it a few seconds later."""
    state = tunnel.state
    if not api_objects.is_decided(state):
        state = TunnelState.ONLINE if since is not None else TunnelState.OFFLINE
    return api_objects.tunnel_object(
        tunnel,
        state=state,
        last_active=now if since is not None or tunnel.seen is TunnelState.ONLINE else tunnel.last_active,
        uptime_s=int(since.lasted_s()) if since is not None else 0,
        usage=usage,
        client=tunnel,
    )


def _time(unix_s: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(unix_s, dt.UTC).replace(microsecond=0) if unix_s else _ZERO_TIME
