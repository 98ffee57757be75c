"""Many threads at once: nothing is given twice, and the log has no gap."""

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

from spokes.model.ports import AllocatePort, ReleasePort
from spokes.model.rule_lists import ReplaceRules
from spokes.model.tokens import CreateToken
from spokes.model.tunnels import CreateTunnel, DeleteTunnel, EditTunnel, RegisterTunnel
from spokes.store import PresenceUpdate, Store, TunnelState
from tests.support.operations import do
from tests.support.threads import join_thread

THREADS = 8
DOMAIN = "tun.example.net"


def at_once(count, work):
    """Run `work(n)` in `count` threads that start together; their results."""
    ready = threading.Barrier(count)

    def run(n):
        ready.wait()
        return work(n)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


def all_seqs(store):
    seqs = []
    while batch := store.changes.after(seqs[-1] if seqs else 0):
        seqs += [change.seq for change in batch]
    return seqs


def test_threads_registering_and_allocating_no_duplicates_and_no_gap(store):
    token = do(store, CreateToken("t")).value

    def work(n):
        registered, ports = [], []
        for k in range(5):
            tunnel, key = do(store, RegisterTunnel(token=token, name=f"t{n}-{k}", domain=DOMAIN))
            registered.append((tunnel.uid, tunnel.hostname, key))
            ports += [do(store, AllocatePort(tunnel.uid, 22000, 22999)) for _ in range(3)]
            do(store, ReleasePort(tunnel.uid, ports.pop()))
        return registered, ports

    results = at_once(THREADS, work)
    tunnels = [tunnel for registered, _ in results for tunnel in registered]
    ports = [port for _, ports in results for port in ports]
    for column in zip(*tunnels, strict=True):
        assert len(set(column)) == THREADS * 5
    assert sorted(ports) == [port.port for port in store.ports.select()]
    assert len(set(ports)) == THREADS * 5 * 2
    assert all_seqs(store) == list(range(1, store.changes.position()[1] + 1))
    assert store.changes.position()[1] == 1 + THREADS * 5 * (2 + 4)


def test_two_stores_on_one_database_take_turns(store, store_url):
    """Two programs (server and admin API), each with threads of its own."""
    with Store.open(store_url) as second:
        tunnel, _ = do(store, CreateTunnel(name="a", domain=DOMAIN))
        ports = at_once(THREADS, lambda n: [
            do((store, second)[n % 2], AllocatePort(tunnel.uid, 22000, 22999)) for _ in range(8)
        ])
        assert sorted(itertools.chain(*ports)) == list(range(22000, 22000 + THREADS * 8))
        assert all_seqs(store) == all_seqs(second) == list(range(1, 3 + THREADS * 8))


def test_one_name_wanted_by_all_goes_to_one(store):
    token = do(store, CreateToken("t")).value
    tunnels = [do(store, RegisterTunnel(token=token, name="a", domain=DOMAIN))[0] for _ in range(THREADS)]

    def claim(n):
        return do(store, ReplaceRules(tunnels[n].uid, [{"domain": "shop.example.org"}], {})).sites[0].error is None

    assert sum(at_once(THREADS, claim)) == 1
    assert len(store.sites.select()) == 1


def test_last_port_wanted_by_all_goes_to_one(store):
    tunnels = [do(store, CreateTunnel(name="a", domain=DOMAIN))[0] for _ in range(THREADS)]

    def allocate(n):
        try:
            return do(store, AllocatePort(tunnels[n].uid, 22000, 22000))
        except Exception as error:
            return error.code

    assert sorted(map(str, at_once(THREADS, allocate))) == ["22000"] + ["SPK-LIMIT"] * (THREADS - 1)


def test_reader_beside_writers_never_sees_a_gap(store):
    """A consumer that reads on from the last seq it saw misses nothing, whatever commits in between."""
    done = threading.Event()
    seen = []

    def read():
        while True:
            over = done.is_set()
            batch = store.changes.after(seen[-1] if seen else 0, 7)
            seen.extend(change.seq for change in batch)
            if over and not batch:
                return

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    at_once(THREADS, lambda n: [do(store, CreateToken(f"{n}-{k}")) for k in range(15)])
    done.set()
    join_thread(reader)
    assert seen == list(range(1, THREADS * 15 + 1))


def test_presence_beside_writers_neither_waits_for_ever_nor_fails(store):
    tunnels = [do(store, CreateTunnel(name="a", domain=DOMAIN))[0] for _ in range(THREADS)]

    def work(n):
        if n == 0:
            do(store, DeleteTunnel(tunnels[0].uid))
        for k in range(10):
            if n % 2:
                do(store, EditTunnel(tunnels[n].uid, name=f"{n}-{k}"))
            else:
                order = tunnels if n % 4 else list(reversed(tunnels))
                store.presence.write([
                    PresenceUpdate(tunnel_uid=tunnel.uid, state=TunnelState.ONLINE, last_active=float(k))
                    for tunnel in order
                ])

    at_once(THREADS, work)
    assert [tunnel.state for tunnel in store.tunnels.select()] == [TunnelState.ONLINE] * (THREADS - 1)
    assert store.tunnels.get(tunnels[0].uid).state == TunnelState.DELETED


def test_close_reaches_connections_of_other_threads(store_url):
    store = Store.open(store_url)
    held = threading.Event()
    go_on = threading.Event()
    outcome = []

    def hold():
        store.tokens.select()
        held.set()
        go_on.wait()
        try:
            store.tokens.select()
        except Exception as error:
            outcome.append(error.code)

    thread = threading.Thread(target=hold, daemon=True)
    thread.start()
    held.wait()
    store.close()
    store.close()
    go_on.set()
    join_thread(thread)
    assert outcome == ["SPK-STORE"]
