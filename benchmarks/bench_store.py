"""Milliseconds per call of the store, with 10,000 tunnels of one site and one port each.

    python benchmarks/bench_store.py [--tunnels N] [--url postgresql://…] [--json]

Without --url a SQLite file in a temporary directory. The database must be empty; it is left filled. Medians of repeated
calls in one process, beside the slowest and the median of the processor time of this process: on a machine that others
use too, that one says more. With PostgreSQL most of the work is in another process. Nothing else writes meanwhile.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from spokes.ids import new_uid
from spokes.model.api_keys import CreateApiKey
from spokes.model.domains import AllowDomains
from spokes.model.operation import SYSTEM, perform
from spokes.model.ports import AllocatePort
from spokes.model.sites import PutSites
from spokes.model.tunnels import CreateTunnel, EditTunnel
from spokes.model.users import CreateUser
from spokes.model.webhooks import CreateWebhook
from spokes.store import NewDelivery, PresenceUpdate, Principal, Store, TrafficDelta, TunnelState, Visit

ROUNDS = 21
PAGE_COUNT = 100
DOMAIN = "tun.example.net"
AT = 1_800_000_000.0

TARGET_MS = {
    "list page": 10.0, "search by name": 50.0, "search by domain": 50.0, "search, no match": 50.0, "find login": 1.0,
    "freeze list, new": 20.0, "freeze list, known": 20.0, "add traffic": 300.0,
}  # fmt: skip


class Fleet:
    """The store, and what was put into it."""

    def __init__(self, store: Store, tunnel_count: int) -> None:
        self.store = store
        self.user = perform(store, SYSTEM, CreateUser(fullname="Mara Lind", check_domains=True))
        perform(store, SYSTEM, AllowDomains(self.user.uid, ["*.example.org"]))
        self.api_key, self.api_key_value = perform(store, SYSTEM, CreateApiKey("benchmark"))
        self.cookie = store.logins.create(api_key_uid=self.api_key.uid)[1]
        self.webhook = perform(store, SYSTEM, CreateWebhook("https://hooks.example.org/spokes"))
        self.uids: list[str] = []
        for number in range(tunnel_count):
            hostname = f"calm-otter-{number}.{DOMAIN}"
            tunnel, _ = perform(store, SYSTEM, CreateTunnel(name=f"till {number}", hostname=hostname, domain=DOMAIN))
            site = {"domain": f"shop{number}.example.org", "destination": "127.0.0.1"}
            perform(store, SYSTEM, PutSites(tunnel.uid, [site]))
            perform(store, SYSTEM, AllocatePort(tunnel.uid, 1_024 + number, 65_535))
            self.uids.append(tunnel.uid)
        store.presence.write(
            PresenceUpdate(
                tunnel_uid=uid, state=TunnelState.ONLINE, last_active=AT, address="198.51.100.7", version="1.2.0",
                os="linux", arch="amd64",
            )
            for uid in self.uids
        )
        services = [(row.tunnel_uid, row.uid) for row in store.sites.select()]
        services += [(row.tunnel_uid, row.uid) for row in store.ports.select()]
        self.deltas = [
            TrafficDelta(tunnel_uid=tunnel_uid, service_uid=uid, bytes_in=1_000, bytes_out=9_000, conns=1)
            for tunnel_uid, uid in services
        ]


def calls(fleet: Fleet) -> dict[str, Callable[[int], object]]:
    """Each is called with the number of its round."""
    store, uids = fleet.store, fleet.uids
    page = uids[:PAGE_COUNT]

    def list_page(_: int) -> object:
        return store.tunnels.get_many(page), store.traffic.usage_of_tunnels(page, AT)

    def list_details(_: int) -> object:
        services = store.sites.select(page), store.ports.select(page)
        return list_page(0), services, store.traffic.usage_of_services(page, AT)

    def act(number: int) -> object:
        with store.audit.acting(Principal(kind="shell")):
            return perform(store, SYSTEM, EditTunnel(uids[0], name=f"till {number}"))

    links = store.result_snapshots.take(uids)
    return {
        "add traffic": lambda number: store.traffic.add(AT + 3_600 * (number // 5), fleet.deltas),
        "list page": list_page,
        "list page with details": list_details,
        "list of ids": lambda _: store.tunnels.uids(),
        "list of all tunnels": lambda _: store.tunnels.select(),
        "count active": lambda _: store.tunnels.count_active(),
        "search by name": lambda _: store.tunnels.search("till 77"),
        "search by domain": lambda _: store.tunnels.search("shop99", "linux"),
        "search, no match": lambda _: store.tunnels.search("nothing of the kind"),
        "search, not ASCII": lambda _: store.tunnels.search("größe"),
        "freeze list, new": lambda number: store.result_snapshots.take(uids[number:] + uids[:number]),
        "freeze list, known": lambda _: store.result_snapshots.take(uids),
        "read page": lambda number: store.result_snapshots.read_page(links[number % len(links)].uid),
        "find login": lambda _: store.logins.find(fleet.cookie),
        "find API key": lambda _: store.api_keys.find(fleet.api_key_value),
        "edit tunnel, with its event": act,
        "usage of all tunnels": lambda _: store.traffic.usage_of_tunnels(None, AT),
        "month of all users": lambda _: store.traffic.month_of_users(AT),
        "list of all users": lambda _: store.users.select(),
        "versions of all users": lambda _: store.users.versions(),
        "queue 100 deliveries": lambda _: store.deliveries.queue(
            NewDelivery(webhook_uid=fleet.webhook.uid, kind="tunnel.up", subject=uid, body="{}") for uid in page
        ),
        "due deliveries": lambda _: store.deliveries.due_of(list(store.deliveries.due_webhooks(AT * 2)), AT * 2, 100),
        "add 1,000 visits": lambda _: store.access_records.add(
            Visit(
                uid=new_uid(), tunnel_uid=delta.tunnel_uid, service_uid=delta.service_uid, service=1,
                address="198.51.100.7", bytes_in=1, bytes_out=1, established=AT, closed=AT,
            )
            for delta in fleet.deltas[:1_000]
        ),
    }


def measure(fleet: Fleet) -> dict[str, dict[str, float]]:
    results: dict[str, dict[str, float]] = {}
    for name, call in calls(fleet).items():
        rounds_ms, cpu_ms = [], []
        for number in range(ROUNDS):
            begin, begin_cpu = time.perf_counter(), time.process_time()
            call(number)
            rounds_ms.append((time.perf_counter() - begin) * 1_000)
            cpu_ms.append((time.process_time() - begin_cpu) * 1_000)
        results[name] = {
            "median_ms": statistics.median(rounds_ms), "slowest_ms": max(rounds_ms), "cpu_ms": statistics.median(cpu_ms)
        }
    return results


@contextmanager
def store_at(url: str | None) -> Iterator[Store]:
    with tempfile.TemporaryDirectory() as directory, Store.open(url or str(Path(directory) / "spokes.db")) as store:
        yield store


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--tunnels", type=int, default=10_000)
    parser.add_argument("--url")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with store_at(options.url) as store:
        results = measure(Fleet(store, options.tunnels))
    if options.json:
        print(json.dumps(results, indent=2))
        return
    print(f"{'call':<30}{'median ms':>12}{'slowest ms':>12}{'CPU ms':>12}{'target ms':>12}")
    for name, result in results.items():
        target = f"{TARGET_MS[name]:.0f}" if name in TARGET_MS else ""
        print(f"{name:<30}{result['median_ms']:>12.2f}{result['slowest_ms']:>12.2f}{result['cpu_ms']:>12.2f}{target:>12}")


if __name__ == "__main__":
    main()
