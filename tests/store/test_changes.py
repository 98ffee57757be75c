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
from spokes.model.api_keys import CreateApiKey, DeleteApiKey, EditApiKey
from spokes.model.domains import AllowDomains, RemoveDomains, ResetDomains
from spokes.model.operation import operations
from spokes.model.passwords import SetPassword, SetTotp
from spokes.model.portmaps import PutPortMaps, RemovePortMaps
from spokes.model.ports import AllocatePort, PutPortRules, ReleasePort
from spokes.model.rule_lists import ReplaceRules
from spokes.model.sites import PutSites, RemoveSites
from spokes.model.tokens import CreateToken, DeleteToken, EditToken
from spokes.model.tunnels import (
    AssignTunnel,
    CreateTunnel,
    DeleteTunnel,
    EditTunnel,
    RegisterTunnel,
    RenewTunnelKey,
    SetTunnelKey,
    SetTunnelState,
)
from spokes.model.users import CreateUser, DeleteUser, EditUser
from spokes.model.webhooks import CreateWebhook, DeleteWebhook, EditWebhook
from spokes.store import (
    Kind,
    NewDelivery,
    Op,
    PresenceUpdate,
    Principal,
    ReplicationSettings,
    Store,
    TrafficBy,
    TrafficDelta,
    TunnelState,
    Visit,
)
from spokes.store.changes import CHANGE_COUNT_MAX
from tests.support.operations import TOTP_SECRET, do, password_hash

DOMAIN = "tun.example.net"


class World:
    """A store with one of everything, for any call to act on."""

    def __init__(self, store):
        self.store = store
        self.token = do(store, CreateToken("t"))
        self.tunnel, self.key = do(store, RegisterTunnel(token=self.token.value, name="a", domain=DOMAIN))
        self.site, = do(store, PutSites(self.tunnel.uid, [{"domain": "a.example.org"}]))
        self.port = do(store, AllocatePort(self.tunnel.uid, 22000, 22999))
        do(store, PutPortMaps(self.tunnel.uid, [{"listenPort": 5432, "dstPort": 22001, "transport": "tcp"}]))
        self.user = do(store, CreateUser(fullname="Mara"))
        do(store, AllowDomains(self.user.uid, ["old.example.org"]))
        self.api_key, self.api_key_value = do(store, CreateApiKey("k"))
        self.webhook = do(store, CreateWebhook("https://hooks.example.org/a"))
        store.deliveries.queue([NewDelivery(webhook_uid=self.webhook.uid, kind="tunnel.up", body="{}")])
        self.delivery, = store.deliveries.select(self.webhook.uid)
        self.login, self.cookie = store.logins.create(api_key_uid=self.api_key.uid)
        store.alerts.open("disk", "/var", "warning", "nearly full")
        self.alert = store.alerts.select(open_only=True)[0]
        self.page, = store.result_snapshots.take([self.tunnel.uid])


PUT, DEL = Op.PUT, Op.DEL
NEW_TUNNEL = [(PUT, Kind.TUNNEL), (PUT, Kind.AUTH_TOKEN)]
# For every operation: a call, and the changes it must append.
MUTATIONS = {
    "token.create": (lambda w: do(w.store, CreateToken("x")), [(PUT, Kind.TOKEN)]),
    "token.edit": (lambda w: do(w.store, EditToken(w.token.uid, "x", False)), [(PUT, Kind.TOKEN)]),
    "token.delete": (lambda w: do(w.store, DeleteToken(w.token.uid)), [(DEL, Kind.TOKEN)]),
    "tunnel.register": (
        lambda w: do(w.store, RegisterTunnel(token=w.token.value, name="x", domain=DOMAIN)), NEW_TUNNEL
    ),
    "tunnel.create": (lambda w: do(w.store, CreateTunnel(name="x", domain=DOMAIN)), NEW_TUNNEL),
    "tunnel.edit": (lambda w: do(w.store, EditTunnel(w.tunnel.uid, name="x")), [(PUT, Kind.TUNNEL)]),
    "tunnel.set_state": (
        lambda w: do(w.store, SetTunnelState(w.tunnel.uid, TunnelState.SHUTDOWN)), [(PUT, Kind.TUNNEL)]
    ),
    "tunnel.delete": (
        lambda w: do(w.store, DeleteTunnel(w.tunnel.uid)),
        [(DEL, Kind.SITE), (DEL, Kind.PORT), (DEL, Kind.PORTMAP), (DEL, Kind.AUTH_TOKEN), (PUT, Kind.TUNNEL)],
    ),
    "site.put": (
        lambda w: do(w.store, PutSites(w.tunnel.uid, [{"domain": "a.example.org", "port": 1}])), [(PUT, Kind.SITE)]
    ),
    "site.remove": (lambda w: do(w.store, RemoveSites(w.tunnel.uid, ["a.example.org"])), [(DEL, Kind.SITE)]),
    "port.allocate": (lambda w: do(w.store, AllocatePort(w.tunnel.uid, 22000, 22999)), [(PUT, Kind.PORT)]),
    "port.release": (lambda w: do(w.store, ReleasePort(w.tunnel.uid, w.port)), [(DEL, Kind.PORT)]),
    "rules.replace": (
        lambda w: do(w.store, ReplaceRules(w.tunnel.uid, [{"domain": "b.example.org"}], {w.port: {"dstPort": 22}})),
        [(DEL, Kind.SITE), (PUT, Kind.SITE), (PUT, Kind.PORT)],
    ),
    "portmap.put": (
        lambda w: do(w.store, PutPortMaps(w.tunnel.uid, [{"listenPort": 5432, "dstPort": 22001, "transport": "udp"}])),
        [(PUT, Kind.PORTMAP)],
    ),
    "portmap.remove": (lambda w: do(w.store, RemovePortMaps(w.tunnel.uid, [5432])), [(DEL, Kind.PORTMAP)]),
    "port.put_rules": (
        lambda w: do(w.store, PutPortRules(w.tunnel.uid, {w.port: {"dstPort": 22}})), [(PUT, Kind.PORT)]
    ),
    "tunnel_key.set": (
        lambda w: do(w.store, SetTunnelKey(w.tunnel.uid, active=False)), [(PUT, Kind.AUTH_TOKEN)]
    ),
    "tunnel_key.renew": (lambda w: do(w.store, RenewTunnelKey(w.tunnel.uid)), [(PUT, Kind.AUTH_TOKEN)]),
    "tunnel.assign": (
        lambda w: do(w.store, AssignTunnel(uid=w.tunnel.uid, user_uid=w.user.uid, name="x", domain=DOMAIN)),
        [(PUT, Kind.TUNNEL)],
    ),
    "user.create": (lambda w: do(w.store, CreateUser(fullname="x")), [(PUT, Kind.USER)]),
    "user.edit": (lambda w: do(w.store, EditUser(w.user.uid, fullname="x")), [(PUT, Kind.USER)]),
    "user.delete": (lambda w: do(w.store, DeleteUser(w.user.uid)), [(DEL, Kind.USER)]),
    "user.set_password": (lambda w: do(w.store, SetPassword(w.user.uid, password_hash("one"))), [(PUT, Kind.USER)]),
    "user.set_totp": (lambda w: do(w.store, SetTotp(w.user.uid, TOTP_SECRET)), [(PUT, Kind.USER)]),
    "domain.allow": (lambda w: do(w.store, AllowDomains(w.user.uid, ["a.example.org"])), [(PUT, Kind.USER)]),
    "domain.remove": (
        lambda w: do(w.store, RemoveDomains(w.user.uid, ["old.example.org"])), [(PUT, Kind.USER)]
    ),
    "domain.reset": (lambda w: do(w.store, ResetDomains(w.user.uid)), [(PUT, Kind.USER)]),
    "api_key.create": (lambda w: do(w.store, CreateApiKey("x")), [(PUT, Kind.API_KEY)]),
    "api_key.edit": (lambda w: do(w.store, EditApiKey(w.api_key.uid, active=False)), [(PUT, Kind.API_KEY)]),
    "api_key.delete": (lambda w: do(w.store, DeleteApiKey(w.api_key.uid)), [(DEL, Kind.API_KEY)]),
    "webhook.create": (lambda w: do(w.store, CreateWebhook("https://hooks.example.org/b")), [(PUT, Kind.WEBHOOK)]),
    "webhook.edit": (lambda w: do(w.store, EditWebhook(w.webhook.uid, active=False)), [(PUT, Kind.WEBHOOK)]),
    "webhook.delete": (lambda w: do(w.store, DeleteWebhook(w.webhook.uid)), [(DEL, Kind.WEBHOOK)]),
}
# The rest of the store's public face changes nothing that is configured, or is no configuration.
QUIET = {
    "open": None,
    "statement_count": lambda w: w.store.statement_count,
    "close": None,
    "where": lambda w: w.store.where,
    "secrets.get": lambda w: w.store.secrets.get("node"),
    "tokens.select": lambda w: w.store.tokens.select(),
    "tunnels.find_by_key": lambda w: w.store.tunnels.find_by_key(w.key),
    "tunnels.get": lambda w: w.store.tunnels.get(w.tunnel.uid),
    "tunnels.auth_token": lambda w: w.store.tunnels.auth_token(w.tunnel.uid),
    "tunnels.select": lambda w: w.store.tunnels.select(),
    "sites.select": lambda w: w.store.sites.select(),
    "ports.select": lambda w: w.store.ports.select(),
    "portmaps.select": lambda w: w.store.portmaps.select(),
    "consumer_offsets.read": lambda w: w.store.consumer_offsets.read("a consumer"),
    "consumer_offsets.write": lambda w: w.store.consumer_offsets.write("a consumer", 1, 2),
    "rules.read": lambda w: w.store.rules.read(w.tunnel.uid),
    "presence.write": lambda w: w.store.presence.write(
        [PresenceUpdate(tunnel_uid=w.tunnel.uid, state=TunnelState.ONLINE, last_active=1.0)]
    ),
    "presence.reset": lambda w: w.store.presence.reset(),
    "changes.position": lambda w: w.store.changes.position(),
    "changes.after": lambda w: w.store.changes.after(0),
    "changes.cursor": lambda w: w.store.changes.cursor(),
    "changes.continues": lambda w: w.store.changes.continues(w.store.changes.cursor()),
    "changes.batch": lambda w: w.store.changes.batch(0),
    "changes.apply": None,               # tests/store/test_apply.py
    "changes.purge_tombstones": lambda w: w.store.changes.purge_tombstones(1e12),
    "cluster.node_uid": lambda w: w.store.cluster.node_uid,
    "cluster.standing": lambda w: w.store.cluster.standing(),
    "cluster.may_write": lambda w: w.store.cluster.may_write(),
    "cluster.settings": lambda w: w.store.cluster.settings(),
    "cluster.set_settings": lambda w: w.store.cluster.set_settings(ReplicationSettings(is_master=True)),
    "cluster.set_fenced": lambda w: w.store.cluster.set_fenced(True),
    "cluster.note_epoch": lambda w: w.store.cluster.note_epoch(w.store.cluster.standing().highest),
    "cluster.promote": None,             # tests/store/test_cluster_state.py
    "cluster.join": None,
    "cluster.load": None,                # tests/store/test_full_sync.py
    "cluster.cluster_key": lambda w: w.store.cluster.cluster_key(),
    "cluster.export": lambda w: list(w.store.cluster.export()),
    "cluster.is_digest_right": lambda w: w.store.cluster.is_digest_right(),
    "cluster.quarantine": lambda w: w.store.cluster.quarantine(),
    "replicas.get": None,
    "replicas.find_by_hostname": lambda w: w.store.replicas.find_by_hostname("b.example.org"),
    "replicas.select": lambda w: w.store.replicas.select(),
    "changes.bodies_before": lambda w: w.store.changes.bodies_before(w.store.changes.after(0)),
    "leave_checkpoints": lambda w: w.store.leave_checkpoints(),
    "domain_verifications.challenge": lambda w: w.store.domain_verifications.challenge(w.user.uid, "shop.example.org"),
    "domain_verifications.select": lambda w: w.store.domain_verifications.select(),
    "tunnels.get_many": lambda w: w.store.tunnels.get_many([w.tunnel.uid]),
    "tunnels.uids": lambda w: w.store.tunnels.uids(),
    "tunnels.of_user": lambda w: w.store.tunnels.of_user(w.user.uid),
    "tunnels.count_active": lambda w: w.store.tunnels.count_active(),
    "tunnels.search": lambda w: w.store.tunnels.search("a"),
    "users.get": lambda w: w.store.users.get(w.user.uid),
    "users.select": lambda w: w.store.users.select(),
    "users.versions": lambda w: w.store.users.versions(),
    "users.get_many": lambda w: w.store.users.get_many([w.user.uid]),
    "users.find_by_email": lambda w: w.store.users.find_by_email("mara@example.org"),
    "users.use_totp_step": lambda w: w.store.users.use_totp_step(w.user.uid, 7),
    "api_keys.get": lambda w: w.store.api_keys.get(w.api_key.uid),
    "api_keys.find": lambda w: w.store.api_keys.find(w.api_key_value),
    "api_keys.select": lambda w: w.store.api_keys.select(),
    "api_keys.touch": lambda w: w.store.api_keys.touch({w.api_key.uid: (1.0, "198.51.100.7")}),
    "logins.create": lambda w: w.store.logins.create(user_uid=w.user.uid),
    "logins.find": lambda w: w.store.logins.find(w.cookie),
    "logins.renew": lambda w: w.store.logins.renew(w.login.uid),
    "logins.end": lambda w: w.store.logins.end(w.login.uid),
    "logins.select": lambda w: w.store.logins.select(),
    "logins.purge": lambda w: w.store.logins.purge(),
    "logins.wait_s": lambda w: w.store.logins.wait_s("198.51.100.7"),
    "logins.note_failure": lambda w: w.store.logins.note_failure("198.51.100.7"),
    "result_snapshots.take": lambda w: w.store.result_snapshots.take([w.tunnel.uid]),
    "result_snapshots.read_page": lambda w: w.store.result_snapshots.read_page(w.page.uid),
    "webhooks.get": lambda w: w.store.webhooks.get(w.webhook.uid),
    "webhooks.select": lambda w: w.store.webhooks.select(),
    "deliveries.queue": lambda w: w.store.deliveries.queue(
        [NewDelivery(webhook_uid=w.webhook.uid, kind="tunnel.up", body="{}")]
    ),
    "deliveries.due_of": lambda w: w.store.deliveries.due_of([w.webhook.uid], 1e12, 10),
    "deliveries.due_webhooks": lambda w: w.store.deliveries.due_webhooks(1e12),
    "deliveries.next_at": lambda w: w.store.deliveries.next_at(),
    "deliveries.heed_clock": lambda w: w.store.deliveries.heed_clock(1e12, (1.0,)),
    "deliveries.finish": lambda w: w.store.deliveries.finish(w.delivery.uid, http_status=200),
    "deliveries.resend": lambda w: w.store.deliveries.resend(w.delivery.uid),
    "deliveries.get": lambda w: w.store.deliveries.get(w.delivery.uid),
    "deliveries.select": lambda w: w.store.deliveries.select(w.webhook.uid),
    "deliveries.count": lambda w: w.store.deliveries.count(w.webhook.uid),
    "deliveries.purge": lambda w: w.store.deliveries.purge(1e12, 0),
    "audit.acting": None,
    "audit.checking": None,
    "audit.require": None,
    "tunnels.locked": lambda w: w.store.tunnels.locked(),
    "audit.note": lambda w: note_event(w.store),
    "audit.write_counted": lambda w: w.store.audit.write_counted(),
    "audit.select": lambda w: w.store.audit.select(),
    "audit.all_records": lambda w: list(w.store.audit.all_records()),
    "audit.export": lambda w: list(w.store.audit.export()),
    "audit.verify": lambda w: w.store.audit.verify(),
    "logins.device_mark": lambda w: w.store.logins.device_mark(w.user, new_uid()),
    "logins.known_device": lambda w: w.store.logins.known_device(w.user, "x"),
    "logins.has_from": lambda w: w.store.logins.has_from("198.51.100.7"),
    "changes.purge": lambda w: w.store.changes.purge(0, 10),
    "audit.purge": lambda w: w.store.audit.purge(1e12, 0),
    "alerts.open": lambda w: w.store.alerts.open("memory", "", "critical", "full"),
    "alerts.resolve": lambda w: w.store.alerts.resolve("disk", "/var"),
    "alerts.select": lambda w: w.store.alerts.select(),
    "alerts.count_unacknowledged": lambda w: w.store.alerts.count_unacknowledged(),
    "alerts.acknowledge": lambda w: w.store.alerts.acknowledge(w.alert.uid),
    "alerts.purge": lambda w: w.store.alerts.purge(1e12),
    "traffic.add": lambda w: w.store.traffic.add(1e9, [TrafficDelta(
        tunnel_uid=w.tunnel.uid, service_uid=w.site.uid, bytes_in=1, bytes_out=1
    )]),
    "traffic.usage_of_tunnels": lambda w: w.store.traffic.usage_of_tunnels(None, 1e9),
    "traffic.usage_of_services": lambda w: w.store.traffic.usage_of_services([w.tunnel.uid], 1e9),
    "traffic.usage_of_user": lambda w: w.store.traffic.usage_of_user(w.user.uid, 1e9),
    "traffic.month_of_users": lambda w: w.store.traffic.month_of_users(1e9),
    "traffic.select": lambda w: w.store.traffic.select(period="h", begin=0, end=2e9),
    "traffic.sums": lambda w: w.store.traffic.sums(by=TrafficBy.SERVICE, period="h", begin=0, end=2e9),
    "traffic.purge": lambda w: w.store.traffic.purge(2e9),
    "access_records.add": lambda w: w.store.access_records.add([Visit(
        uid=new_uid(), tunnel_uid=w.tunnel.uid, service_uid=w.site.uid, service=1, address="198.51.100.7", bytes_in=1,
        bytes_out=1, established=1.0, closed=2.0,
    )]),
    "access_records.select": lambda w: w.store.access_records.select(),
    "access_records.purge": lambda w: w.store.access_records.purge(1e12, 10),
}

# What operations work with, inside their transaction.
WITHIN = {
    "changes.event_budget", "changes.transaction", "changes.secrets", "changes.node_uid", "secrets.hash", "secrets.key",
    "secrets.digest_key", "secrets.set_key", "settings.tunnels_per_user_max",
    "settings.verified_domains_only", "hostnames.holders_of_hostnames", "hostnames.holders_of_sites",
    "hostnames.former", "hostnames.has_others_below", "hostnames.hold", "tokens.get", "tokens.find_by_value",
    "tokens.insert", "tunnels.find", "tunnels.live", "tunnels.insert_auth_token", "tunnels.update_auth_token",
    "tunnels.delete_parts", "tunnels.count_of_user", "tunnels.count_of_token", "tunnels.registered_since",
    "operation_results.find", "operation_results.put", "rules.state", "rules.note_unmanaged", "rules.count_bytes",
    "ports.get", "ports.allocated", "ports.count_of_user",
    "users.find", "users.insert", "users.update", "users.is_email_of_another", "users.delete_parts",
    "api_keys.insert", "api_keys.count_of_user", "webhooks.count_of_user", "domain_verifications.find",
    "domain_verifications.put", "domain_verifications.proved", "domain_verifications.delete_of_user",
}


def note_event(store):
    with store.audit.acting(Principal(kind="shell")):
        store.audit.note("session.stop")


def test_public_face_every_function_is_named_here(store):
    public = {name for name, _ in inspect.getmembers(Store) if not name.startswith("_")}
    for name, facet in vars(store).items():
        if not name.startswith("_"):
            public |= {f"{name}.{part}" for part, _ in inspect.getmembers(facet) if not part.startswith("_")}
    assert public == QUIET.keys() | WITHIN


def test_every_operation_is_named_here():
    assert operations().keys() == MUTATIONS.keys() | {"domain.note_check"}     # which is no configuration


@pytest.mark.parametrize("name", MUTATIONS)
def test_mutation_appends_its_changes(store, name):
    world = World(store)
    epoch, before = store.changes.position()
    call, expected = MUTATIONS[name]
    call(world)
    changes = store.changes.after(before)
    assert [(change.op, change.kind) for change in changes] == expected
    assert [change.seq for change in changes] == list(range(before + 1, before + 1 + len(expected)))
    assert store.changes.position() == (epoch, before + len(expected))
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
    before = store.changes.position()
    QUIET[name](world)
    assert store.changes.position() == before
    assert store.changes.after(before[1]) == []


def test_replaying_the_log_gives_the_rows(store):
    """What a consumer builds from puts and dels is what the tables hold."""
    for name in MUTATIONS:
        if name.rpartition(".")[2] not in ("delete", "remove", "release"):
            MUTATIONS[name][0](world := another_world(store))
    do(store, DeleteTunnel(world.tunnel.uid))
    do(store, DeleteUser(world.user.uid))
    objects = {}
    for change in all_changes(store):
        if change.op == Op.PUT:
            objects[change.kind, change.uid] = change.body
        else:
            del objects[change.kind, change.uid]
    rebuilt = {(kind, uid, body["rev"]) for (kind, uid), body in objects.items()}
    listed = {
        *((Kind.TOKEN, row.uid, row.rev) for row in store.tokens.select()),
        *((Kind.TUNNEL, row.uid, row.rev) for row in [*store.tunnels.select(), store.tunnels.get(world.tunnel.uid)]),
        *(
            (Kind.AUTH_TOKEN, (auth := store.tunnels.auth_token(row.uid)).uid, auth.rev)
            for row in store.tunnels.select()
        ),
        *((Kind.SITE, row.uid, row.rev) for row in store.sites.select()),
        *((Kind.PORT, row.uid, row.rev) for row in store.ports.select()),
        *((Kind.PORTMAP, row.uid, row.rev) for row in store.portmaps.select()),
        *((Kind.USER, row.uid, row.rev) for row in store.users.select()),
        *((Kind.API_KEY, row.uid, row.rev) for row in store.api_keys.select()),
        *((Kind.WEBHOOK, row.uid, row.rev) for row in store.webhooks.select()),
    }
    assert rebuilt == listed


def test_change_row_is_the_row_that_was_written(store):
    world = World(store)
    rows = {change.kind: change.row() for change in store.changes.after(0)}
    assert rows == {
        Kind.TOKEN: world.token, Kind.TUNNEL: world.tunnel, Kind.AUTH_TOKEN: store.tunnels.auth_token(world.tunnel.uid),
        Kind.SITE: world.site, Kind.PORT: store.ports.select()[0], Kind.PORTMAP: store.portmaps.select()[0],
        Kind.USER: store.users.get(world.user.uid), Kind.API_KEY: world.api_key, Kind.WEBHOOK: world.webhook,
    }
    do(store, DeleteToken(world.token.uid))
    assert store.changes.after(0)[-1].row() is None


def test_change_row_unknown_kind_or_form_stops_with_words(store):
    change = store.changes.after(do(store, CreateToken("t")).rev - 1)[0]
    for strange in (replace(change, kind="teapot"), replace(change, body={**change.body, "lid": "open"})):
        with pytest.raises(StoreError, match="does not know"):
            strange.row()


def test_changes_after_bounds(store):
    for n in range(5):
        do(store, CreateToken(f"t{n}"))
    assert [change.seq for change in store.changes.after(0, 2)] == [1, 2]
    assert [change.seq for change in store.changes.after(3)] == [4, 5]
    assert store.changes.after(5) == store.changes.after(10**30) == store.changes.after(0, 0) == []
    assert store.changes.after(0, -1) == []
    assert len(store.changes.after(-1, 10**9)) == 5


def test_changes_after_never_more_than_its_bound(store):
    tunnel, _ = do(store, CreateTunnel(name="a", domain=DOMAIN))
    do(store, ReplaceRules(tunnel.uid, [{"domain": f"s{n}.example.org"} for n in range(1000)], {}))
    do(store, ReplaceRules(tunnel.uid, [], {}))
    assert len(store.changes.after(0, 10**6)) == CHANGE_COUNT_MAX
    assert [change.seq for change in all_changes(store)] == list(range(1, 2003))


def test_rev_of_a_recreated_object_is_newer_than_its_deletion(store):
    world = World(store)
    do(store, RemoveSites(world.tunnel.uid, ["a.example.org"]))
    deletion = store.changes.after(0)[-1]
    site, = do(store, PutSites(world.tunnel.uid, [{"domain": "a.example.org"}]))
    assert site.rev > deletion.rev > world.site.rev


def test_changes_are_seen_by_another_process(tmp_path):
    url = f"sqlite:///{tmp_path / 's.db'}"
    with Store.open(url) as store:
        program = (
            "from spokes.model.operation import SYSTEM, perform\nfrom spokes.model.tokens import CreateToken\n"
            f"from spokes.store import Store\nwith Store.open({url!r}) as s: "
            "perform(s, SYSTEM, CreateToken('from afar'))"
        )
        subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
        assert store.changes.position() == (1, 1)
        assert store.changes.after(0)[0].body["description"] == "from afar"


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
    for site in store.sites.select():
        do(store, RemoveSites(site.tunnel_uid, [site.domain]))
    for webhook in store.webhooks.select():
        do(store, DeleteWebhook(webhook.uid))
    return World(store)


def all_changes(store):
    changes = []
    while batch := store.changes.after(changes[-1].seq if changes else 0):
        changes += batch
    return changes


def facts(store):
    try:
        rows = (
            store.tokens.select(), store.tunnels.select(), store.sites.select(), store.ports.select(),
            store.portmaps.select(),
        )
        rows += store.users.select(), store.api_keys.select(), store.webhooks.select(), store.logins.select()
        return rows, all_changes(store), store.changes.position()
    except SpokesError as error:
        pytest.fail(f"the store cannot be read any more: {error.line()}")


def test_purge_changes_keeps_the_young_and_a_number_of_the_newest(store):
    time = clock.ManualClock()
    with clock.replaced(time):
        for n in range(6):
            time.advance(10)
            do(store, CreateToken(f"t{n}"))
        assert store.changes.purge(time.wall_s() + 1, 100) == 0
        assert store.changes.purge(time.wall_s() - 1_000, 0) == 0
        assert store.changes.purge(time.wall_s() - 15, 3) == 3
        assert [change.seq for change in store.changes.after(0)] == [4, 5, 6]
        assert store.changes.purge(time.wall_s() - 5, 0) == 2
        assert store.changes.position()[1] == 6
        do(store, CreateToken("next"))
        assert [change.seq for change in store.changes.after(0)] == [6, 7]
