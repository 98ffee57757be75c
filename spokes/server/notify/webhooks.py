"""Deliveries of webhooks, from the store's queue to their targets. Nothing else waits for them.

Bound: REQUEST_COUNT_MAX requests at once, shared by the owners of webhooks (shares.py), REQUEST_COUNT_PER_WEBHOOK_MAX
of one webhook, so that targets that hang hold back their own only. Of one subject the oldest goes first and the others
wait for what becomes of it.
Fails: TRY_COUNT_MAX attempts over hours, then the delivery has failed; at once where the address is refused, because it
would be refused again. A store that fails is logged and asked again. The next attempt is kept as wall time, for it
outlives the process; a wall clock that is set moves what waits along, and no wait becomes longer than it may be.
"""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

from spokes import clock
from spokes.errors import SpokesError
from spokes.resolver import Resolve
from spokes.server.base.storethread import StoreThread
from spokes.server.base.worker_loop import wait_until_set
from spokes.server.notify.alerts import AlertBoard
from spokes.server.notify.resolver import SharedResolver
from spokes.server.notify.webhook_request import Outcome, post
from spokes.shares import Shares
from spokes.store import Delivery, DeliveryState, Severity, Webhook
from spokes.wire.signing import signed_headers

log = logging.getLogger(__name__)

REQUEST_COUNT_MAX = 32
REQUEST_COUNT_PER_WEBHOOK_MAX = 4
WAITS_S = (10.0, 60.0, 300.0, 900.0, 3600.0, 7200.0, 14400.0)  # after each failed attempt but the last
TRY_COUNT_MAX = len(WAITS_S) + 1
JITTER = 0.2  # of a wait, more or less
CLOCK_STEP_S = 2.0  # by which the wall clock was set, and did not drift
ALERT_TRY_COUNT = 3  # a target that refused the same delivery so often is worth an alert
CHECK_INTERVAL_S_MAX = 60.0  # at the latest; earlier when one is due or the dispatcher is woken
STORE_RETRY_S = 5.0
ALERT_KIND = "webhook"
SERVER_FAILED = "the server failed; its log says why"


class WebhookDispatcher:
    """Sends what is due."""

    def __init__(
        self, store: StoreThread, alerts: AlertBoard, resolve: Resolve, *, waits_s: tuple[float, ...] = WAITS_S
    ) -> None:
        self._store = store
        self._alerts = alerts
        self._waits_s = waits_s
        self._woken = asyncio.Event()
        self._tasks: dict[str, asyncio.Task[None]] = {}  # by delivery
        self._running: Counter[str] = Counter()  # by webhook
        self._ahead_s: float | None = None  # the wall clock of the monotonic one, when it was read last
        self._ended_meanwhile: set[str] = set()  # deliveries, while the queue was being read
        self._shares = Shares(REQUEST_COUNT_MAX)  # by owner
        self._resolver = SharedResolver(resolve)
        self._context: ssl.SSLContext | None = None
        self.delivered_count = 0  # attempts, since the start
        self.failed_count = 0

    @property
    def request_count(self) -> int:
        """Under way now."""
        return len(self._tasks)

    def wake(self) -> None:
        """Something was queued; returns at once."""
        self._woken.set()

    async def run(self) -> None:
        try:
            while True:
                self._woken.clear()
                try:
                    wait_s = await self._step()
                except SpokesError as error:
                    log.warning("webhooks not read", extra={"code": error.code, "detail": str(error)})
                    wait_s = STORE_RETRY_S
                await wait_until_set(self._woken, wait_s)
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _step(self) -> float:
        """Begins what is due and may begin; how long nothing is to do."""
        store, now = self._store.store, clock.wall_s()
        await self._heed_clock(now)
        await self._settle_gone()
        if self._shares.used >= REQUEST_COUNT_MAX:
            return CHECK_INTERVAL_S_MAX  # a task that ends wakes us
        self._ended_meanwhile.clear()
        of_owners: defaultdict[str, list[str]] = defaultdict(list)
        for uid, owner in (await self._store.run(store.deliveries.due_webhooks, now)).items():
            if self._running[uid] < REQUEST_COUNT_PER_WEBHOOK_MAX:
                of_owners[owner].append(uid)
        webhooks: dict[str, Webhook] = {}
        if any(map(self._shares.room, of_owners)):
            webhooks = {webhook.uid: webhook for webhook in await self._store.run(store.webhooks.select)}
        begun = 0
        for owner in sorted(of_owners, key=self._shares.held):  # who has least under way comes first
            if room := self._shares.room(owner):
                count = room + sum(self._running[uid] for uid in of_owners[owner])
                due = await self._store.run(store.deliveries.due_of, of_owners[owner], now, count)
                begun += self._begin_some(due, webhooks)
        if begun:
            return 0.0  # there may be more behind those
        at = await self._store.run(store.deliveries.next_at)
        if at is None or at <= now:
            return CHECK_INTERVAL_S_MAX  # what is due is under way or has to wait for one that is; its end wakes us
        return min(at - now, CHECK_INTERVAL_S_MAX)

    async def _heed_clock(self, now: float) -> None:
        """At the start, when nobody knows what was done to the clock, and when it was set since the last check."""
        ahead_s = now - clock.monotonic_s()
        jump_s = 0.0 if self._ahead_s is None else ahead_s - self._ahead_s
        if self._ahead_s is None or abs(jump_s) > CLOCK_STEP_S:
            waits_s = [wait_s * (1 + JITTER) for wait_s in self._waits_s]
            heed = self._store.store.deliveries.heed_clock
            count = await self._store.run(heed, now, waits_s, jump_s=max(0.0, jump_s))
            if self._ahead_s is not None or count:
                log.info("clock was set; deliveries moved", extra={"by_s": round(jump_s, 1), "shortened": count})
        self._ahead_s = ahead_s

    async def _settle_gone(self) -> None:
        """Of a webhook that was deleted or switched off nothing is wrong any longer."""
        if subjects := self._alerts.subjects(ALERT_KIND):
            webhooks = await self._store.run(self._store.store.webhooks.select)
            active = {webhook.uid for webhook in webhooks if webhook.active}
            for uid in subjects:
                if uid not in active:
                    self._alerts.settle(ALERT_KIND, uid)

    def _begin_some(self, due: Iterable[Delivery], webhooks: Mapping[str, Webhook]) -> int:
        begun = 0
        for delivery in due:
            webhook = webhooks.get(delivery.webhook_uid)
            if webhook is None or delivery.uid in self._tasks or delivery.uid in self._ended_meanwhile:
                continue
            if self._shares.may(webhook.user_uid) and self._running[webhook.uid] < REQUEST_COUNT_PER_WEBHOOK_MAX:
                self._begin(delivery, webhook)
                begun += 1
        return begun

    def _begin(self, delivery: Delivery, webhook: Webhook) -> None:
        task = asyncio.get_running_loop().create_task(self._deliver(delivery, webhook), name="webhook")
        self._tasks[delivery.uid] = task
        self._running[delivery.webhook_uid] += 1
        self._shares.take(webhook.user_uid)
        task.add_done_callback(lambda _: self._ended(delivery, webhook.user_uid))

    def _ended(self, delivery: Delivery, owner: str) -> None:
        self._shares.give_back(owner)
        del self._tasks[delivery.uid]
        self._ended_meanwhile.add(delivery.uid)
        self._running[delivery.webhook_uid] -= 1
        self._running += Counter()  # leaves no zeros behind
        self._woken.set()

    async def _deliver(self, delivery: Delivery, webhook: Webhook) -> None:
        outcome = await self._post(delivery, webhook)
        if outcome.delivered:
            self.delivered_count += 1
        else:
            self.failed_count += 1
        while True:
            try:
                return await self._note(delivery, webhook, outcome)
            except SpokesError as error:
                # Kept until the store takes it: what was delivered must not be sent again for want of a note.
                log.warning("delivery not noted", extra={"delivery_uid": delivery.uid, "code": error.code})
            except Exception:  # as long as it stands here, it is not sent again for ever
                log.exception("delivery not noted", extra={"delivery_uid": delivery.uid})
                outcome = Outcome(outcome.http_status, SERVER_FAILED, retryable=False)
            await asyncio.sleep(STORE_RETRY_S)

    async def _post(self, delivery: Delivery, webhook: Webhook) -> Outcome:
        try:
            body = delivery.body.encode()
            headers = signed_headers(webhook.secret, delivery.uid, int(clock.wall_s()), body)
            if self._context is None:  # reading the system's authorities takes a while
                self._context = await asyncio.to_thread(ssl.create_default_context)
            return await post(
                webhook.url,
                headers,
                body,
                allow_private=webhook.allow_private,
                context=self._context,
                lookup=lambda host: self._resolver(host, webhook.user_uid),
            )
        except Exception:
            log.exception("webhook failed", extra={"delivery_uid": delivery.uid})
            return Outcome(0, SERVER_FAILED)

    async def _note(self, delivery: Delivery, webhook: Webhook, outcome: Outcome) -> None:
        next_attempt = None
        if not outcome.delivered and outcome.retryable and delivery.attempts < len(self._waits_s):
            # Jitter, so that a target that was away does not get everything in one moment.
            jitter = random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311  (spreads load, guards nothing)
            next_attempt = clock.wall_s() + self._waits_s[delivery.attempts] * jitter
        finished = await self._store.run(
            lambda: self._store.store.deliveries.finish(
                delivery.uid,
                http_status=outcome.http_status,
                error=outcome.error,
                next_attempt=next_attempt,
            )
        )
        if finished is None:
            return  # deleted meanwhile, with its webhook
        log.info(
            "webhook sent" if outcome.delivered else "webhook not delivered",
            extra={
                "webhook_uid": delivery.webhook_uid,
                "delivery_uid": delivery.uid,
                "kind": delivery.kind,
                "http_status": outcome.http_status,
                "attempt": finished.attempts,
                "detail": outcome.error,
            },
        )
        if outcome.delivered:
            self._alerts.settle(ALERT_KIND, webhook.uid)
        elif finished.attempts >= ALERT_TRY_COUNT or finished.state is DeliveryState.FAILED:
            words = f"webhook {webhook.description or webhook.uid} does not take its events: {outcome.error}"
            self._alerts.raise_(ALERT_KIND, webhook.uid, Severity.WARNING, words)
