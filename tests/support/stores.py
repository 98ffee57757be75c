"""A store with at least one row in every table, and how to compare two stores whole."""

from spokes.ids import new_uid
from spokes.model.api_keys import CreateApiKey
from spokes.model.domains import AllowDomains, NoteDomainCheck
from spokes.model.portmaps import PutPortMaps
from spokes.model.ports import AllocatePort
from spokes.model.sites import PutSites
from spokes.model.tokens import CreateToken
from spokes.model.tunnels import AssignTunnel, CreateTunnel, DeleteTunnel
from spokes.model.users import CreateUser
from spokes.model.webhooks import CreateWebhook
from spokes.store import (
    Delivery,
    NewDelivery,
    PresenceUpdate,
    Principal,
    Replica,
    Store,
    TrafficDelta,
    TunnelState,
    Visit,
)
from spokes.store.db import Database
from spokes.store.operation_results import StoredResult
from spokes.store.tables import MODELS
from tests.support.operations import do

DOMAIN = "tun.example.net"


def due_deliveries(store: Store, now: float, limit: int = 100) -> list[Delivery]:
    """Of all webhooks."""
    return store.deliveries.due_of(list(store.deliveries.due_webhooks(now)), now, limit)


def fill(store: Store) -> dict[str, str]:
    """One of everything, odd characters included; the secrets by which some of it is found."""
    with store.audit.acting(Principal(kind="shell", name="Jörg \U0001f680")):
        do(store, CreateToken("tab\u2192, back\\slash, \\N, \\."))
        user = do(store, CreateUser(fullname="Mara \\t Lind", email="mara@example.org", check_domains=True))
        do(store, AllowDomains(user.uid, ["*.example.org"]))
        tunnel, auth = do(store, CreateTunnel(name="t", domain=DOMAIN, user_uid=user.uid))
        site, = do(store, PutSites(tunnel.uid, [{"domain": "a.example.org", "x": ["\x00", "\ud800", 1.5, None, True]}]))
        do(store, AllocatePort(tunnel.uid, 22000, 22999))
        portmap = {"listenPort": 8080, "dstPort": 443, "transport": "tcp", "destination": "a.example.org"}
        do(store, PutPortMaps(tunnel.uid, [portmap]))
        gone, _ = do(store, CreateTunnel(name="gone", domain=DOMAIN))
        do(store, AssignTunnel(uid=gone.uid, user_uid=user.uid, name="", hostname="gone-on." + DOMAIN, domain=DOMAIN))
        do(store, DeleteTunnel(gone.uid))
        api_key, api_key_value = do(store, CreateApiKey("k"))
        webhook = do(store, CreateWebhook("https://hooks.example.org", kinds=["a", "b"]))
    with store.changes.transaction() as tx:
        tx.insert(Replica(uid=new_uid(), created=tx.now, modified=tx.now, hostname="b.example.net", active=True))
    with store._db.write():
        store._db.query(
            "INSERT INTO quarantine VALUES ({}, 1, 1, 'token', 'del', {}, 1, NULL, 0.5, 1.5)", (new_uid(), new_uid())
        )
    store.presence.write([
        PresenceUpdate(tunnel_uid=tunnel.uid, state=TunnelState.ONLINE, last_active=1.0 / 3, address="198.51.100.7")
    ])
    do(store, NoteDomainCheck(user.uid, "*.example.org", seen=True))
    with store.changes.transaction() as tx:
        store.operation_results.put(tx, "name", StoredResult("digest", 1, 2, b"\x00result"))
    store.api_keys.touch({api_key.uid: (1e9 / 3, "2001:db8::1")})
    _, cookie = store.logins.create(api_key_uid=api_key.uid, agent="curl")
    store.logins.note_failure("198.51.100.7")
    store.result_snapshots.take([tunnel.uid])
    store.deliveries.queue(
        NewDelivery(webhook_uid=webhook.uid, kind="tunnel.up", subject=site.uid, body=body) for body in ("{}", "[]")
    )
    store.deliveries.finish(due_deliveries(store, 4e9)[0].uid, http_status=204)
    store.alerts.open("disk", "/", "warning", "t")
    store.traffic.add(1.8e9, [TrafficDelta(tunnel_uid=tunnel.uid, service_uid=site.uid, bytes_in=1, bytes_out=2**62)])
    store.access_records.add([Visit(
        uid=new_uid(), tunnel_uid=tunnel.uid, service_uid=site.uid, service=1, address="::1", bytes_in=1, bytes_out=2,
        established=0.1, closed=0.2,
    )])
    return {"tunnel": auth.value, "api_key": api_key_value, "cookie": cookie}


def rows_of(url: str) -> dict[str, list[tuple[object, ...]]]:
    """All rows of all tables as Python sees them: equal for equal stores, whatever the engine."""
    database = Database(url, create=False)
    try:
        return {
            model._meta.table_name: sorted(database.read(model.select().tuples()), key=repr) for model in MODELS
        }
    finally:
        database.close()
