"""The change log: nothing changes without it, nothing is in it that did not change."""

import inspect
import sqlite3
import subprocess
import sys
from dataclasses import replace

import pytest

from spokes import clock
from spokes.errors import SpokesError, StoreError
from spokes.ids import new_uid
from spokes.store import (
    Actor,
    Kind,
    NewDelivery,
    Op,
    PresenceUpdate,
    Store,
    TrafficBy,
    TrafficDelta,
    TunnelState,
    Visit,
)
from spokes.store.changes import CHANGE_COUNT_MAX

DOMAIN = "tun.example.net"


class World:
    """A store with one of everything, for any call to act on."""

    def __init__(self, store):
        self.store = store
        self.token = store.create_token("t")
        self.tunnel, self.key = store.register_tunnel(self.token.value, "a", domain=DOMAIN)
        self.site, = store.put_sites(self.tunnel.uid, [{"domain": "a.example.org"}])
        self.port = store.allocate_port(self.tunnel.uid, 22000, 22999)
        store.put_portmaps(self.tunnel.uid, [{"listenPort": 5432, "dstPort": 22001, "transport": "tcp"}])
        self.user = store.create_user(fullname="Mara")
        store.allow_domains(self.user.uid, ["old.example.org"])
        self.api_key, self.api_key_value = store.create_api_key("k")
        self.webhook = store.create_webhook("https://hooks.example.org/a")
        store.queue_deliveries([NewDelivery(webhook_uid=self.webhook.uid, kind="tunnel.up", body="{}")])
        self.delivery, = store.list_deliveries(self.webhook.uid)
        self.login, self.cookie = store.create_login(api_key_uid=self.api_key.uid)
        store.raise_alert("disk", "/var", "warning", "nearly full")
        self.alert = store.list_alerts(open_only=True)[0]
        self.page, = store.freeze_list([self.tunnel.uid])


PUT, DEL = Op.PUT, Op.DEL
NEW_TUNNEL = [(PUT, Kind.TUNNEL), (PUT, Kind.AUTH_TOKEN)]
# For every public function that changes what is configured: a call, and the changes it must append.
MUTATIONS = {
    "create_token": (lambda w: w.store.create_token("x"), [(PUT, Kind.TOKEN)]),
    "edit_token": (lambda w: w.store.edit_token(w.token.uid, "x", False), [(PUT, Kind.TOKEN)]),
    "delete_token": (lambda w: w.store.delete_token(w.token.uid), [(DEL, Kind.TOKEN)]),
    "register_tunnel": (lambda w: w.store.register_tunnel(w.token.value, "x", domain=DOMAIN), NEW_TUNNEL),
    "create_tunnel": (lambda w: w.store.create_tunnel("x", domain=DOMAIN), NEW_TUNNEL),
    "edit_tunnel": (lambda w: w.store.edit_tunnel(w.tunnel.uid, name="x"), [(PUT, Kind.TUNNEL)]),
    "set_tunnel_state": (
        lambda w: w.store.set_tunnel_state(w.tunnel.uid, TunnelState.SHUTDOWN), [(PUT, Kind.TUNNEL)]
    ),
    "delete_tunnel": (
        lambda w: w.store.delete_tunnel(w.tunnel.uid),
        [(DEL, Kind.SITE), (DEL, Kind.PORT), (DEL, Kind.PORTMAP), (DEL, Kind.AUTH_TOKEN), (PUT, Kind.TUNNEL)],
    ),
    "put_sites": (
        lambda w: w.store.put_sites(w.tunnel.uid, [{"domain": "a.example.org", "port": 1}]), [(PUT, Kind.SITE)]
    ),
    "remove_sites": (lambda w: w.store.remove_sites(w.tunnel.uid, ["a.example.org"]), [(DEL, Kind.SITE)]),
    "allocate_port": (lambda w: w.store.allocate_port(w.tunnel.uid, 22000, 22999), [(PUT, Kind.PORT)]),
    "release_port": (lambda w: w.store.release_port(w.tunnel.uid, w.port), [(DEL, Kind.PORT)]),
    "replace_rules": (
        lambda w: w.store.replace_rules(w.tunnel.uid, [{"domain": "b.example.org"}], {w.port: {"dstPort": 22}}),
        [(DEL, Kind.SITE), (PUT, Kind.SITE), (PUT, Kind.PORT)],
    ),
    "put_portmaps": (
        lambda w: w.store.put_portmaps(w.tunnel.uid, [{"listenPort": 5432, "transport": "udp"}]), [(PUT, Kind.PORTMAP)]
    ),
    "remove_portmaps": (lambda w: w.store.remove_portmaps(w.tunnel.uid, [5432]), [(DEL, Kind.PORTMAP)]),
    "put_port_rules": (
        lambda w: w.store.put_port_rules(w.tunnel.uid, {w.port: {"dstPort": 22}}), [(PUT, Kind.PORT)]
    ),
    "set_auth_token": (lambda w: w.store.set_auth_token(w.tunnel.uid, active=False), [(PUT, Kind.AUTH_TOKEN)]),
    "renew_auth_token": (lambda w: w.store.renew_auth_token(w.tunnel.uid), [(PUT, Kind.AUTH_TOKEN)]),
    "assign_tunnel": (
        lambda w: w.store.assign_tunnel(w.tunnel.uid, w.user.uid, name="x", domain=DOMAIN), [(PUT, Kind.TUNNEL)]
    ),
    "create_user": (lambda w: w.store.create_user(fullname="x"), [(PUT, Kind.USER)]),
    "edit_user": (lambda w: w.store.edit_user(w.user.uid, fullname="x"), [(PUT, Kind.USER)]),
    "delete_user": (lambda w: w.store.delete_user(w.user.uid), [(DEL, Kind.USER)]),
    "set_password": (lambda w: w.store.set_password(w.user.uid, "hash"), [(PUT, Kind.USER)]),
    "set_totp": (lambda w: w.store.set_totp(w.user.uid, "secret"), [(PUT, Kind.USER)]),
    "allow_domains": (lambda w: w.store.allow_domains(w.user.uid, ["a.example.org"]), [(PUT, Kind.USER)]),
    "remove_domains": (lambda w: w.store.remove_domains(w.user.uid, ["old.example.org"]), [(PUT, Kind.USER)]),
    "reset_domains": (lambda w: w.store.reset_domains(w.user.uid), [(PUT, Kind.USER)]),
    "create_api_key": (lambda w: w.store.create_api_key("x"), [(PUT, Kind.API_KEY)]),
    "edit_api_key": (lambda w: w.store.edit_api_key(w.api_key.uid, active=False), [(PUT, Kind.API_KEY)]),
    "delete_api_key": (lambda w: w.store.delete_api_key(w.api_key.uid), [(DEL, Kind.API_KEY)]),
    "create_webhook": (lambda w: w.store.create_webhook("https://hooks.example.org/b"), [(PUT, Kind.WEBHOOK)]),
    "edit_webhook": (lambda w: w.store.edit_webhook(w.webhook.uid, active=False), [(PUT, Kind.WEBHOOK)]),
    "delete_webhook": (lambda w: w.store.delete_webhook(w.webhook.uid), [(DEL, Kind.WEBHOOK)]),
}
# The rest of the store's public face changes nothing that is configured, or is no configuration.
QUIET = {
    "open": None,
    "statement_count": lambda w: w.store.statement_count,
    "close": None,
    "where": lambda w: w.store.where,
    "secret": lambda w: w.store.secret("node"),
    "list_tokens": lambda w: w.store.list_tokens(),
    "find_tunnel_by_key": lambda w: w.store.find_tunnel_by_key(w.key),
    "get_tunnel": lambda w: w.store.get_tunnel(w.tunnel.uid),
    "get_auth_token": lambda w: w.store.get_auth_token(w.tunnel.uid),
    "list_tunnels": lambda w: w.store.list_tunnels(),
    "list_sites": lambda w: w.store.list_sites(),
    "list_ports": lambda w: w.store.list_ports(),
    "list_portmaps": lambda w: w.store.list_portmaps(),
    "read_mark": lambda w: w.store.read_mark("a consumer"),
    "write_mark": lambda w: w.store.write_mark("a consumer", 1, 2),
    "read_rules": lambda w: w.store.read_rules(w.tunnel.uid),
    "require_managed": lambda w: w.store.require_managed(w.tunnel.uid),
    "write_presence": lambda w: w.store.write_presence(
        [PresenceUpdate(tunnel_uid=w.tunnel.uid, state=TunnelState.ONLINE, last_active=1.0)]
    ),
    "reset_presence": lambda w: w.store.reset_presence(),
    "position": lambda w: w.store.position(),
    "changes_after": lambda w: w.store.changes_after(0),
    "bodies_before": lambda w: w.store.bodies_before(w.store.changes_after(0)),
    "needs_proof": lambda w: w.store.needs_proof,
    "leave_checkpoints": lambda w: w.store.leave_checkpoints(),
    "domain_challenge": lambda w: w.store.domain_challenge(w.user.uid, "shop.example.org"),
    "note_domain_check": lambda w: w.store.note_domain_check(w.user.uid, "shop.example.org", seen=True),
    "list_domain_proofs": lambda w: w.store.list_domain_proofs(),
    "get_tunnels": lambda w: w.store.get_tunnels([w.tunnel.uid]),
    "list_tunnel_uids": lambda w: w.store.list_tunnel_uids(),
    "list_user_tunnels": lambda w: w.store.list_user_tunnels(w.user.uid),
    "count_active_tunnels": lambda w: w.store.count_active_tunnels(),
    "search_tunnels": lambda w: w.store.search_tunnels("a"),
    "get_user": lambda w: w.store.get_user(w.user.uid),
    "list_users": lambda w: w.store.list_users(),
    "list_user_versions": lambda w: w.store.list_user_versions(),
    "get_users": lambda w: w.store.get_users([w.user.uid]),
    "find_user_by_email": lambda w: w.store.find_user_by_email("mara@example.org"),
    "use_totp_step": lambda w: w.store.use_totp_step(w.user.uid, 7),
    "get_api_key": lambda w: w.store.get_api_key(w.api_key.uid),
    "find_api_key": lambda w: w.store.find_api_key(w.api_key_value),
    "list_api_keys": lambda w: w.store.list_api_keys(),
    "touch_api_keys": lambda w: w.store.touch_api_keys({w.api_key.uid: (1.0, "198.51.100.7")}),
    "create_login": lambda w: w.store.create_login(user_uid=w.user.uid),
    "find_login": lambda w: w.store.find_login(w.cookie),
    "renew_login": lambda w: w.store.renew_login(w.login.uid),
    "end_login": lambda w: w.store.end_login(w.login.uid),
    "list_logins": lambda w: w.store.list_logins(),
    "purge_logins": lambda w: w.store.purge_logins(),
    "login_wait_s": lambda w: w.store.login_wait_s("198.51.100.7"),
    "note_login_failure": lambda w: w.store.note_login_failure("198.51.100.7"),
    "freeze_list": lambda w: w.store.freeze_list([w.tunnel.uid]),
    "read_page": lambda w: w.store.read_page(w.page.uid),
    "get_webhook": lambda w: w.store.get_webhook(w.webhook.uid),
    "list_webhooks": lambda w: w.store.list_webhooks(),
    "queue_deliveries": lambda w: w.store.queue_deliveries(
        [NewDelivery(webhook_uid=w.webhook.uid, kind="tunnel.up", body="{}")]
    ),
    "due_deliveries_of": lambda w: w.store.due_deliveries_of([w.webhook.uid], 1e12, 10),
    "due_webhooks": lambda w: w.store.due_webhooks(1e12),
    "next_delivery_at": lambda w: w.store.next_delivery_at(),
    "heed_clock": lambda w: w.store.heed_clock(1e12, (1.0,)),
    "finish_delivery": lambda w: w.store.finish_delivery(w.delivery.uid, http_status=200),
    "resend_delivery": lambda w: w.store.resend_delivery(w.delivery.uid),
    "get_delivery": lambda w: w.store.get_delivery(w.delivery.uid),
    "list_deliveries": lambda w: w.store.list_deliveries(w.webhook.uid),
    "count_deliveries": lambda w: w.store.count_deliveries(w.webhook.uid),
    "purge_deliveries": lambda w: w.store.purge_deliveries(1e12, 0),
    "acting": None,
    "checking": None,
    "require": None,
    "list_locked_tunnels": lambda w: w.store.list_locked_tunnels(),
    "tunnels_per_user_max": None,
    "note_event": lambda w: note_event(w.store),
    "write_counted_events": lambda w: w.store.write_counted_events(),
    "list_events": lambda w: w.store.list_events(),
    "all_events": lambda w: list(w.store.all_events()),
    "export_events": lambda w: list(w.store.export_events()),
    "verify_events": lambda w: w.store.verify_events(),
    "device_mark": lambda w: w.store.device_mark(w.user, new_uid()),
    "known_device": lambda w: w.store.known_device(w.user, "x"),
    "has_login_from": lambda w: w.store.has_login_from("198.51.100.7"),
    "purge_changes": lambda w: w.store.purge_changes(0, 10),
    "purge_events": lambda w: w.store.purge_events(1e12, 0),
    "raise_alert": lambda w: w.store.raise_alert("memory", "", "critical", "full"),
    "resolve_alert": lambda w: w.store.resolve_alert("disk", "/var"),
    "list_alerts": lambda w: w.store.list_alerts(),
    "count_unacknowledged": lambda w: w.store.count_unacknowledged(),
    "acknowledge_alert": lambda w: w.store.acknowledge_alert(w.alert.uid),
    "purge_alerts": lambda w: w.store.purge_alerts(1e12),
    "add_traffic": lambda w: w.store.add_traffic(1e9, [TrafficDelta(
        tunnel_uid=w.tunnel.uid, service_uid=w.site.uid, bytes_in=1, bytes_out=1
    )]),
    "usage_of_tunnels": lambda w: w.store.usage_of_tunnels(None, 1e9),
    "usage_of_services": lambda w: w.store.usage_of_services([w.tunnel.uid], 1e9),
    "usage_of_user": lambda w: w.store.usage_of_user(w.user.uid, 1e9),
    "month_of_users": lambda w: w.store.month_of_users(1e9),
    "list_traffic": lambda w: w.store.list_traffic(period="h", begin=0, end=2e9),
    "sum_traffic": lambda w: w.store.sum_traffic(by=TrafficBy.SERVICE, period="h", begin=0, end=2e9),
    "purge_traffic": lambda w: w.store.purge_traffic(2e9),
    "add_visits": lambda w: w.store.add_visits([Visit(
        uid=new_uid(), tunnel_uid=w.tunnel.uid, service_uid=w.site.uid, service=1, address="198.51.100.7", bytes_in=1,
        bytes_out=1, established=1.0, closed=2.0,
    )]),
    "list_visits": lambda w: w.store.list_visits(),
    "purge_visits": lambda w: w.store.purge_visits(1e12, 10),
}


def note_event(store):
    with store.acting(Actor(kind="shell")):
        store.note_event("session.stop")


def test_public_face_every_function_is_named_here():
    public = {name for name, _ in inspect.getmembers(Store) if not name.startswith("_")}
    assert public == MUTATIONS.keys() | QUIET.keys()


@pytest.mark.parametrize("name", MUTATIONS)
def test_mutation_appends_its_changes(store, name):
    world = World(store)
    epoch, before = store.position()
    call, expected = MUTATIONS[name]
    call(world)
    changes = store.changes_after(before)
    assert [(change.op, change.kind) for change in changes] == expected
    assert [change.seq for change in changes] == list(range(before + 1, before + 1 + len(expected)))
    assert store.position() == (epoch, before + len(expected))
    for change in changes:
        assert (change.epoch, change.rev) == (epoch, change.seq)
        assert (change.body is None) == (change.op == Op.DEL)
        assert change.body is None or (change.body["uid"], change.body["rev"]) == (change.uid, change.rev)


@pytest.mark.parametrize("name", MUTATIONS)
def test_mutation_that_fails_at_its_end_leaves_neither_row_nor_change(store, name, monkeypatch):
    world = World(store)
    before = facts(store)

    def fail(_):
        raise StoreError("the disk is full")

    monkeypatch.setattr("spokes.store.changes.Writer.flush", fail)
    with pytest.raises(StoreError):
        MUTATIONS[name][0](world)
    monkeypatch.undo()
    assert facts(store) == before
    MUTATIONS[name][0](world)                                # the connection and the locks are as good as new
    assert facts(store) != before


@pytest.mark.parametrize("name", [name for name, call in QUIET.items() if call])
def test_quiet_call_appends_nothing(store, name):
    world = World(store)
    before = store.position()
    QUIET[name](world)
    assert store.position() == before
    assert store.changes_after(before[1]) == []


def test_replaying_the_log_gives_the_rows(store):
    """What a consumer builds from puts and dels is what the tables hold."""
    for name in MUTATIONS:
        if not name.startswith(("delete", "remove", "release")):
            MUTATIONS[name][0](world := another_world(store))
    store.delete_tunnel(world.tunnel.uid)
    store.delete_user(world.user.uid)
    objects = {}
    for change in all_changes(store):
        if change.op == Op.PUT:
            objects[change.kind, change.uid] = change.body
        else:
            del objects[change.kind, change.uid]
    rebuilt = {(kind, uid, body["rev"]) for (kind, uid), body in objects.items()}
    listed = {
        *((Kind.TOKEN, row.uid, row.rev) for row in store.list_tokens()),
        *((Kind.TUNNEL, row.uid, row.rev) for row in [*store.list_tunnels(), store.get_tunnel(world.tunnel.uid)]),
        *((Kind.AUTH_TOKEN, (auth := store.get_auth_token(row.uid)).uid, auth.rev) for row in store.list_tunnels()),
        *((Kind.SITE, row.uid, row.rev) for row in store.list_sites()),
        *((Kind.PORT, row.uid, row.rev) for row in store.list_ports()),
        *((Kind.PORTMAP, row.uid, row.rev) for row in store.list_portmaps()),
        *((Kind.USER, row.uid, row.rev) for row in store.list_users()),
        *((Kind.API_KEY, row.uid, row.rev) for row in store.list_api_keys()),
        *((Kind.WEBHOOK, row.uid, row.rev) for row in store.list_webhooks()),
    }
    assert rebuilt == listed


def test_change_row_is_the_row_that_was_written(store):
    world = World(store)
    rows = {change.kind: change.row() for change in store.changes_after(0)}
    assert rows == {
        Kind.TOKEN: world.token, Kind.TUNNEL: world.tunnel, Kind.AUTH_TOKEN: store.get_auth_token(world.tunnel.uid),
        Kind.SITE: world.site, Kind.PORT: store.list_ports()[0], Kind.PORTMAP: store.list_portmaps()[0],
        Kind.USER: store.get_user(world.user.uid), Kind.API_KEY: world.api_key, Kind.WEBHOOK: world.webhook,
    }
    store.delete_token(world.token.uid)
    assert store.changes_after(0)[-1].row() is None


def test_change_row_unknown_kind_or_form_stops_with_words(store):
    change = store.changes_after(store.create_token("t").rev - 1)[0]
    for strange in (replace(change, kind="teapot"), replace(change, body={**change.body, "lid": "open"})):
        with pytest.raises(StoreError, match="does not know"):
            strange.row()


def test_changes_after_bounds(store):
    for n in range(5):
        store.create_token(f"t{n}")
    assert [change.seq for change in store.changes_after(0, 2)] == [1, 2]
    assert [change.seq for change in store.changes_after(3)] == [4, 5]
    assert store.changes_after(5) == store.changes_after(10**30) == store.changes_after(0, 0) == []
    assert store.changes_after(0, -1) == []
    assert len(store.changes_after(-1, 10**9)) == 5


def test_changes_after_never_more_than_its_bound(store):
    tunnel, _ = store.create_tunnel("a", domain=DOMAIN)
    store.replace_rules(tunnel.uid, [{"domain": f"s{n}.example.org"} for n in range(1000)], {})
    store.replace_rules(tunnel.uid, [], {})
    assert len(store.changes_after(0, 10**6)) == CHANGE_COUNT_MAX
    assert [change.seq for change in all_changes(store)] == list(range(1, 2003))


def test_rev_of_a_recreated_object_is_newer_than_its_deletion(store):
    world = World(store)
    store.remove_sites(world.tunnel.uid, ["a.example.org"])
    deletion = store.changes_after(0)[-1]
    site, = store.put_sites(world.tunnel.uid, [{"domain": "a.example.org"}])
    assert site.rev > deletion.rev > world.site.rev


def test_changes_are_seen_by_another_process(tmp_path):
    url = f"sqlite:///{tmp_path / 's.db'}"
    with Store.open(url) as store:
        program = f"from spokes.store import Store\nwith Store.open({url!r}) as s: s.create_token('from afar')"
        subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
        assert store.position() == (1, 1)
        assert store.changes_after(0)[0].body["description"] == "from afar"


def test_no_mutation_but_through_the_log(tmp_path):
    """Held at the database: a trigger on every table counts row changes, and each has its change."""
    path = tmp_path / "s.db"
    Store.open(str(path)).close()
    with sqlite3.connect(path) as raw:
        raw.execute("CREATE TABLE seen (uid TEXT)")
        for table in ("token", "tunnel", "auth_token", "site", "port", "portmap", "user", "api_key", "webhook"):
            for verb, row in (("INSERT", "new"), ("UPDATE", "new"), ("DELETE", "old")):
                note = f"INSERT INTO seen VALUES ({row}.uid)"
                raw.execute(f'CREATE TRIGGER {table}_{verb} AFTER {verb} ON "{table}" BEGIN {note}; END')
    with Store.open(str(path)) as store:
        for name in MUTATIONS:
            MUTATIONS[name][0](another_world(store))
        changed = [change.uid for change in all_changes(store)]
    with sqlite3.connect(path) as raw:
        assert sorted(uid for (uid,) in raw.execute("SELECT uid FROM seen")) == sorted(changed)


def another_world(store):
    """One more of everything, beside what stands."""
    for site in store.list_sites():
        store.remove_sites(site.tunnel_uid, [site.domain])
    for webhook in store.list_webhooks():
        store.delete_webhook(webhook.uid)
    return World(store)


def all_changes(store):
    changes = []
    while batch := store.changes_after(changes[-1].seq if changes else 0):
        changes += batch
    return changes


def facts(store):
    try:
        rows = store.list_tokens(), store.list_tunnels(), store.list_sites(), store.list_ports(), store.list_portmaps()
        rows += store.list_users(), store.list_api_keys(), store.list_webhooks(), store.list_logins()
        return rows, all_changes(store), store.position()
    except SpokesError as error:
        pytest.fail(f"the store cannot be read any more: {error.line()}")


def test_purge_changes_keeps_the_young_and_a_number_of_the_newest(store):
    time = clock.ManualClock()
    with clock.replaced(time):
        for n in range(6):
            time.advance(10)
            store.create_token(f"t{n}")
        assert store.purge_changes(time.wall_s() + 1, 100) == 0
        assert store.purge_changes(time.wall_s() - 1_000, 0) == 0
        assert store.purge_changes(time.wall_s() - 15, 3) == 3
        assert [change.seq for change in store.changes_after(0)] == [4, 5, 6]
        assert store.purge_changes(time.wall_s() - 5, 0) == 2
        assert store.position()[1] == 6
        store.create_token("next")
        assert [change.seq for change in store.changes_after(0)] == [6, 7]
