"""A store with at least one row in every table, and how to compare two stores whole."""

from spokes.ids import new_uid
from spokes.store import Actor, Delivery, NewDelivery, PresenceUpdate, Store, TrafficDelta, TunnelState, Visit
from spokes.store.db import Database
from spokes.store.tables import MODELS

DOMAIN = "tun.example.net"


def due_deliveries(store: Store, now: float, limit: int = 100) -> list[Delivery]:
    """Of all webhooks."""
    return store.due_deliveries_of(list(store.due_webhooks(now)), now, limit)


def fill(store: Store) -> dict[str, str]:
    """One of everything, odd characters included; the secrets by which some of it is found."""
    with store.acting(Actor(kind="shell", name="Jörg \U0001f680")):
        store.create_token("tab\u2192, back\\slash, \\N, \\.")
        user = store.create_user(fullname="Mara \\t Lind", email="mara@example.org", check_domains=True)
        store.allow_domains(user.uid, ["*.example.org"])
        tunnel, auth = store.create_tunnel("t", domain=DOMAIN, user_uid=user.uid)
        site, = store.put_sites(tunnel.uid, [{"domain": "a.example.org", "x": ["\x00", "\ud800", 1.5, None, True]}])
        store.allocate_port(tunnel.uid, 22000, 22999)
        store.put_portmaps(tunnel.uid, [{"listenPort": 8080, "transport": "tcp", "destination": "a.example.org:443"}])
        gone, _ = store.create_tunnel("gone", domain=DOMAIN)
        store.assign_tunnel(gone.uid, user.uid, name="", hostname="gone-on." + DOMAIN, domain=DOMAIN)
        store.delete_tunnel(gone.uid)
        api_key, api_key_value = store.create_api_key("k")
        webhook = store.create_webhook("https://hooks.example.org", kinds=["a", "b"])
    store.write_presence([
        PresenceUpdate(tunnel_uid=tunnel.uid, state=TunnelState.ONLINE, last_active=1.0 / 3, address="198.51.100.7")
    ])
    store.note_domain_check(user.uid, "*.example.org", seen=True)
    store.touch_api_keys({api_key.uid: (1e9 / 3, "2001:db8::1")})
    _, cookie = store.create_login(api_key_uid=api_key.uid, agent="curl")
    store.note_login_failure("198.51.100.7")
    store.freeze_list([tunnel.uid])
    store.queue_deliveries(
        NewDelivery(webhook_uid=webhook.uid, kind="tunnel.up", subject=site.uid, body=body) for body in ("{}", "[]")
    )
    store.finish_delivery(due_deliveries(store, 4e9)[0].uid, http_status=204)
    store.raise_alert("disk", "/", "warning", "t")
    store.add_traffic(1.8e9, [TrafficDelta(tunnel_uid=tunnel.uid, service_uid=site.uid, bytes_in=1, bytes_out=2**62)])
    store.add_visits([Visit(
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
