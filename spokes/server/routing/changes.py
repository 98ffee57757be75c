"""The server as a consumer of the change log: from committed changes to routes, ports and live sessions.

Owns: its position in the log. It reads when woken (after a mutation of ours, or by the control socket after one of
another process); reading a change twice does no harm, so it may start from a full read at any time.
Fails: a store that fails is logged and asked again. A change that cannot be applied is set aside and reported
(set_aside.py) and tried again; those behind it come into force all the same. What it passed over, or what failed beyond
those that are known one by one, is read from the store as it is once the cause has gone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict

from spokes.errors import InactiveError, InternalError, NotFoundError
from spokes.server.base.set_aside import SetAside, Subject, is_passing
from spokes.server.base.storethread import StoreThread
from spokes.server.base.worker_loop import run_when_woken
from spokes.server.routing.decisions import Decision, RulesChanged, RulesUnreadable, TunnelBlocked, TunnelDeleted
from spokes.server.routing.ports import PortListeners
from spokes.server.routing.routes import RouteTable, port_limits, site_limits
from spokes.server.routing.stored_config import read_config
from spokes.server.routing.users import Users
from spokes.store import Change, Cursor, Kind, Op, Port, Site, Tunnel, User
from spokes.wire.rules import serves_plain_http

log = logging.getLogger(__name__)

BATCH_COUNT_MAX = 500
RETRY_S = 1.0
KEY_HINT = "ask the operator for the new one, and start the client again with it"
ASK_HINT = "ask the operator, and start the client again when it may run"


class ChangeFollower:
    """Applies the change log to this server."""

    def __init__(
        self, store: StoreThread, routes: RouteTable, ports: PortListeners, users: Users, *, domain: str
    ) -> None:
        self._store = store
        self._domain = domain
        self._users = users
        self._routes = routes
        self._ports = ports
        self._seq = self._generation = 0
        self._shut: set[str] = set()  # tunnels the operator shut down
        self._locked: set[str] = set()  # tunnels whose key is switched off
        self._portmaps: dict[str, str] = {}  # port map: tunnel; a deletion names the map alone
        self._reading = asyncio.Lock()
        self._woken = asyncio.Event()
        self._revisions: dict[str, int] = {}  # of tunnels' rules that changed, and are still to be told
        self._incomplete: set[str] = set()  # tunnels that came late: what belongs to them was passed over
        self._users_changed = False
        self._told_seq = 0
        self._retry: asyncio.TimerHandle | None = None
        self.set_aside: SetAside[Change] = SetAside("change")
        self.on_decision: Callable[[Decision], None] = _ignore
        self.has_older_rules: Callable[[str, int], bool] = _has_no_rules  # (tunnel, revision): does a client here?
        self.on_users_changed: Callable[[], None] = _nobody
        self.on_changes: Callable[[], None] = _nobody

    @property
    def seq(self) -> int:
        return self._seq

    def is_blocked(self, tunnel_uid: str) -> bool:
        return (
            tunnel_uid in self._shut or tunnel_uid in self._locked or not self._users.may_log_in(tunnel_uid)
        )

    async def load(self) -> None:
        """Takes over everything as it is; the log behind the position read first brings what changed meanwhile."""
        store = self._store.store
        self._generation, self._seq = await self._store.run(store.changes.cursor)
        for user in await self._store.run(store.users.select):
            self._users.put(user.uid, active=user.active, bandwidth_mb=user.bandwidth_mb)
        for tunnel in await self._store.run(store.tunnels.select):
            with self._each(Kind.TUNNEL, tunnel):
                self._routes.put_tunnel(tunnel.uid, tunnel.hostname)
                self._users.put_tunnel(tunnel.uid, tunnel.user_uid)
            if tunnel.shutdown:
                self._shut.add(tunnel.uid)
        self._locked.update(await self._store.run(store.tunnels.locked))
        for site in await self._store.run(store.sites.select):
            with self._each(Kind.SITE, site):
                self._put_site(site.uid, site.tunnel_uid, site.domain, site.rule)
        for port in await self._store.run(store.ports.select):
            with self._each(Kind.PORT, port):
                self._routes.put_port(port.uid, port.tunnel_uid, port.port, limits=port_limits(port.rule))
        self._portmaps = {portmap.uid: portmap.tunnel_uid for portmap in await self._store.run(store.portmaps.select)}
        self._routes.publish()
        self._ports.sync(self._routes.ports())
        self._told_seq = self._seq
        self._wake_for_retry()

    @contextmanager
    def _each(self, kind: Kind, row: Tunnel | Site | Port) -> Iterator[None]:
        """One object of many: if it cannot be taken, the others are, and it is tried again as if it had changed."""
        try:
            yield
        except Exception as error:
            self.set_aside.put(Subject(kind, row.uid), self._change_to(kind, row), error)

    async def _read_objects(self, tunnel_uid: str | None = None) -> set[str]:
        """Sites and ports as they are, of one tunnel or all. What changed meanwhile comes once more by the log."""
        store = self._store.store
        rows: list[tuple[Kind, Site | Port]] = [
            *((Kind.SITE, site) for site in await self._store.run(store.sites.select, tunnel_uid)),
            *((Kind.PORT, port) for port in await self._store.run(store.ports.select, tunnel_uid)),
        ]
        for kind, row in rows:
            self._try(Subject(kind, row.uid), self._change_to(kind, row))
        return {row.uid for _, row in rows}

    async def _read_again(self) -> None:
        """Everything, after more failed than are known one by one; what is gone goes."""
        store = self._store.store
        for user in await self._store.run(store.users.select):
            self._try(Subject(Kind.USER, user.uid), self._change_to(Kind.USER, user))
        tunnels = await self._store.run(store.tunnels.select)
        for uid in self._routes.slots().keys() - {tunnel.uid for tunnel in tunnels}:
            self._try(Subject(Kind.TUNNEL, uid), self._change_to(Kind.TUNNEL, uid))
        for tunnel in tunnels:
            self._try(Subject(Kind.TUNNEL, tunnel.uid), self._change_to(Kind.TUNNEL, tunnel))
        locked = set(await self._store.run(store.tunnels.locked))
        for uid in locked ^ self._locked:
            self._lock(uid, on=uid in locked)
        for uid in self._routes.objects() - await self._read_objects():
            self._try(Subject(Kind.SITE, uid), self._change_to(Kind.SITE, uid))
        self._portmaps = {portmap.uid: portmap.tunnel_uid for portmap in await self._store.run(store.portmaps.select)}

    def _change_to(self, kind: Kind, row: Tunnel | Site | Port | User | str) -> Change:
        """To what the store holds; a UID alone is of one that is gone."""
        if isinstance(row, str):
            return Change(seq=self._seq, epoch=0, kind=kind, op=Op.DEL, uid=row, rev=0, body=None, time=0.0)
        return Change(
            seq=self._seq, epoch=0, kind=kind, op=Op.PUT, uid=row.uid, rev=row.rev, body=asdict(row), time=row.modified
        )

    def wake(self) -> None:
        """There may be changes; returns at once."""
        self._woken.set()

    async def run(self) -> None:
        await run_when_woken(self._woken, self.catch_up, log=log, failed="change log not read", retry_s=RETRY_S)

    async def catch_up(self) -> None:
        """Returns when everything committed before the call is in force."""
        async with self._reading:
            changes = self._store.store.changes
            if not await self._store.run(changes.continues, Cursor(self._generation, self._seq)):
                self._generation, self._seq = await self._store.run(changes.cursor)
                await self._read_again()
            while batch := await self._store.run(self._store.store.changes.after, self._seq, BATCH_COUNT_MAX):
                for change in batch:
                    subject = Subject(change.kind, change.uid)
                    self.set_aside.forget(subject)
                    self._try(subject, change)
                    self._seq = change.seq
            for subject, change in self.set_aside.due():
                self._try(subject, change)
            for uid in list(self._incomplete):
                await self._read_objects(uid)
                self._incomplete.discard(uid)
            if self.set_aside.settle_more():
                await self._read_again()
            # Each of these may fail, and is then still to be done at the next call.
            if self._users_changed:
                self.on_users_changed()
                self._users_changed = False
            self._routes.publish()
            if self._ports.ports != self._routes.ports():
                self._ports.sync(self._routes.ports())
            await self._decide_rules()
            told_seq, self._told_seq = self._told_seq, self._seq
        self._wake_for_retry()
        if self._seq != told_seq:
            self.on_changes()

    async def _decide_rules(self) -> None:
        """Reads changed rules once for each client that has older ones, and decides that it is sent them. A store that
        fails leaves the others for the next call."""
        for tunnel_uid, revision in list(self._revisions.items()):
            if self.has_older_rules(tunnel_uid, revision):
                try:
                    stored = await self._store.run(read_config, self._store.store, tunnel_uid, self._domain)
                except NotFoundError:
                    log.debug("rules of a deleted tunnel passed over", extra={"tunnel_uid": tunnel_uid})
                except Exception as error:
                    if is_passing(error):
                        raise
                    self.on_decision(RulesUnreadable(tunnel_uid, error))
                else:
                    self.on_decision(RulesChanged(tunnel_uid, stored))
            del self._revisions[tunnel_uid]

    def _wake_for_retry(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        if (wait_s := self.set_aside.next_try_s()) is not None:
            self._retry = asyncio.get_running_loop().call_later(wait_s, self.wake)

    def _try(self, subject: Subject, change: Change) -> None:
        self._users_changed |= change.kind in (Kind.USER, Kind.TUNNEL)
        try:
            self._apply(change)
        except Exception as error:
            self.set_aside.put(subject, change, error)
        else:
            if self.set_aside.settle(subject) and change.kind == Kind.TUNNEL and change.op is Op.PUT:
                self._incomplete.add(change.uid)

    def _apply(self, change: Change) -> None:
        if change.op is Op.PUT and change.body is None:
            raise InternalError(f"change {change.seq} cannot be read")
        body = change.body or {}
        tunnel_uid = str(body.get("tunnel_uid", "")) or self._routes.tunnel_of(change.uid)
        match change.kind, change.op:
            case Kind.TUNNEL, Op.PUT if body["deleted_at"] is None:
                self._routes.put_tunnel(change.uid, str(body["hostname"]))
                self._users.put_tunnel(change.uid, str(body["user_uid"]))
                self._block(self._shut, change.uid, bool(body["shutdown"]), "this tunnel was shut down by the operator")
                self._block_of_inactive([change.uid])
            case Kind.TUNNEL, _:
                self.on_decision(TunnelDeleted(change.uid, InactiveError("this tunnel was deleted")))
                self._routes.drop_tunnel(change.uid)
                self._users.drop_tunnel(change.uid)
                self._shut.discard(change.uid)
                self._locked.discard(change.uid)
            case Kind.AUTH_TOKEN, Op.PUT:
                if body["modified"] != body["created"]:      # whoever logged in with what it was
                    reason = InactiveError("this tunnel's key was changed", hint=KEY_HINT)
                    self.on_decision(TunnelBlocked(tunnel_uid, reason))
                self._lock(tunnel_uid, on=not body["active"])
            case Kind.SITE, Op.PUT:
                rule = body["rule"]
                self._put_site(change.uid, tunnel_uid, str(body["domain"]), rule)
            case Kind.PORT, Op.PUT:
                self._routes.put_port(change.uid, tunnel_uid, int(body["port"]), limits=port_limits(body["rule"]))
            case ((Kind.SITE | Kind.PORT), Op.DEL):
                self._routes.drop(change.uid)
            case Kind.PORTMAP, Op.PUT:
                self._portmaps[change.uid] = tunnel_uid
            case Kind.PORTMAP, Op.DEL:
                tunnel_uid = self._portmaps.pop(change.uid, "")
            case Kind.USER, Op.PUT:
                self._users.put(change.uid, active=bool(body["active"]), bandwidth_mb=int(body["bandwidth_mb"]))
                self._block_of_inactive(self._users.tunnels_of(change.uid))
            case Kind.USER, _:
                self._users.drop(change.uid)  # its tunnels are deleted by changes of their own
            case _:
                return  # registration tokens are asked of the store at each use
        if tunnel_uid and change.kind in (Kind.SITE, Kind.PORT, Kind.PORTMAP):
            # The revision of a tunnel's rules is the place in the log of the change that touched one of them last.
            self._revisions[tunnel_uid] = max(change.seq, self._revisions.get(tunnel_uid, 0))

    def _put_site(self, uid: str, tunnel_uid: str, domain: str, rule: Mapping[str, object]) -> None:
        self._routes.put_site(
            uid,
            tunnel_uid,
            domain,
            pass_through=bool(rule.get("tls")),
            plain=serves_plain_http(rule),
            limits=site_limits(rule),
        )

    def _block_of_inactive(self, tunnel_uids: Iterable[str]) -> None:
        for uid in tunnel_uids:
            if not self._users.may_log_in(uid):
                reason = InactiveError("the owner of this tunnel is deactivated", hint=ASK_HINT)
                self.on_decision(TunnelBlocked(uid, reason))

    def _lock(self, tunnel_uid: str, *, on: bool) -> None:
        self._block(self._locked, tunnel_uid, on, "this tunnel's key is switched off")

    def _block(self, blocked: set[str], tunnel_uid: str, on: bool, words: str) -> None:
        if on:
            blocked.add(tunnel_uid)
            self.on_decision(TunnelBlocked(tunnel_uid, InactiveError(words, hint=ASK_HINT)))
        else:
            blocked.discard(tunnel_uid)


def _has_no_rules(_tunnel_uid: str, _revision: int) -> bool:
    """No client is here."""
    return False


def _nobody() -> None:
    """Nobody wants to know."""


def _ignore(_decision: Decision) -> None:
    """No client is here to be told."""
