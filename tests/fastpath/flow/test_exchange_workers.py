"""Two workers: conns are handed to the worker that has the tunnel's links, with all that was read so far."""

from __future__ import annotations

import random
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from spokes._fastpath.engine import EventKind, RouteKind, Site
from tests.support.engines import CHAIN_PEM, DOMAIN, PIN, Pair, engine_pair, eventually, wait_events
from tests.support.http_wire import (
    Message,
    ScriptedUpstream,
    Wire,
    answering,
    request,
    response,
    serving,
)

Visit = Callable[[], Wire]


@pytest.fixture
def pair() -> Iterator[Pair]:
    with engine_pair(workers=2) as joined:
        yield joined
        joined.assert_idle()


def connect_on(pair: Pair, worker: int) -> int:
    """A further link whose server end lives on that worker: the kernel spreads them, so it is tried until it fits."""
    for _ in range(64):
        dialled = pair.client.connect_link("127.0.0.1", pair.ports["tls"], server_name=DOMAIN, pin_sha256=PIN)
        wait_events(pair.client, lambda event: event.kind == EventKind.LINK_UP)
        link = wait_events(pair.server, lambda event: event.kind == EventKind.LINK_UP).link
        if (link >> 56) - 1 == worker:
            pair.client.bind_link(dialled, pair.client_tunnel)
            return link
        pair.client.close_link(dialled)
        wait_events(pair.client, lambda event: event.kind == EventKind.LINK_DOWN)
        wait_events(pair.server, lambda event: event.kind == EventKind.LINK_DOWN)
    raise AssertionError("64 links, and none on that worker")


def serve_on_both(pair: Pair, upstream: ScriptedUpstream) -> None:
    """w0.tun.test has its link on worker 0, w1.tun.test on worker 1."""
    for worker in range(2):
        tunnel = pair.server.open_tunnel()
        pair.server.bind_link(connect_on(pair, worker), tunnel)
        eventually(lambda tunnel=tunnel: pair.server.tunnel_counters(tunnel)[3] > 0)   # its worker has taken it
        pair.server.set_route(RouteKind.HTTP, f"w{worker}.tun.test", Site(tunnels=(tunnel,)))
        pair.client.set_route(RouteKind.HTTP, f"w{worker}.tun.test", Site(upstream=upstream.upstream()))
    pair.publish()


def echo(wire: Wire, asked: Message) -> None:
    wire.send(response(asked.one("Host").encode() + asked.target.encode() + asked.body))


def test_many_conns_are_handed_over_and_answered(pair: Pair, visit: Visit) -> None:
    with ScriptedUpstream(serving(echo)) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitors = [visit() for _ in range(100)]
        for i, visitor in enumerate(visitors):
            visitor.send(request(f"/{i}", method="POST", body=b"x" * i * 100))
        for i, visitor in enumerate(visitors):
            assert visitor.read_response().body == f"a.tun.test/{i}".encode() + b"x" * i * 100
        stats = pair.server.stats()
        assert 0 < stats["handovers_total"] <= 100
        assert stats["requests_total"] == 100
        for visitor in visitors:
            visitor.send(request("/again"))
            assert visitor.read_response().body == b"a.tun.test/again"
        assert pair.server.stats()["handovers_total"] == stats["handovers_total"]


def test_conn_that_visits_tunnels_on_different_workers_is_answered_in_order(pair: Pair, visit: Visit) -> None:
    with ScriptedUpstream(serving(echo)) as upstream:
        serve_on_both(pair, upstream)
        visitor = visit()
        for i in range(100):
            visitor.send(request(f"/{i}", host=f"w{i % 2}.tun.test", method="POST", body=b"b" * 3000))
            assert visitor.read_response().body == f"w{i % 2}.tun.test/{i}".encode() + b"b" * 3000
        assert pair.server.stats()["handovers_total"] >= 99


@pytest.mark.parametrize("seed", range(5))
def test_pipelined_requests_that_change_workers_are_answered_in_order(pair: Pair, visit: Visit, seed: int) -> None:
    chance = random.Random(seed)
    with ScriptedUpstream(serving(echo)) as upstream:
        serve_on_both(pair, upstream)
        plans = []
        for _ in range(8):
            asks = [(chance.randrange(3), chance.choice([0, 10, 20_000, 70_000])) for _ in range(40)]
            asks = [(worker, 0 if worker == 2 else size) for worker, size in asks]  # a page for half a request closes
            visitor = visit()
            data = b"".join(
                request(f"/{i}", host=f"w{worker}.tun.test", method="POST", body=b"p" * size)
                for i, (worker, size) in enumerate(asks)
            )
            threading.Thread(target=visitor.sock.sendall, args=(data,), daemon=True).start()
            plans.append((visitor, asks))

        def read(visitor: Wire, asks: list[tuple[int, int]]) -> None:
            for i, (worker, size) in enumerate(asks):
                answer = visitor.read_response()
                if worker == 2:
                    assert answer.status == 404
                else:
                    assert answer.body == f"w{worker}.tun.test/{i}".encode() + b"p" * size

        # All at once: a visitor that is not read holds its upstream up, which gives up after its time-out.
        with ThreadPoolExecutor(len(plans)) as readers:
            for reading in [readers.submit(read, *plan) for plan in plans]:
                reading.result()
        assert pair.server.stats()["handovers_total"] > 0


def test_conns_in_crumbs_are_handed_over(pair: Pair, visit: Visit) -> None:
    with ScriptedUpstream(serving(echo)) as upstream:
        serve_on_both(pair, upstream)
        visitor = visit()
        for i in range(6):
            whole = request("/", host=f"w{i % 2}.tun.test", method="POST", body=b"abc")
            visitor.send_in_parts([bytes([byte]) for byte in whole], pause_s=0.0002)
            assert visitor.read_response().body == f"w{i % 2}.tun.test/abc".encode()


def test_tls_conns_are_handed_over_with_their_tls_state(pair: Pair) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=CHAIN_PEM.decode())
    with ScriptedUpstream(serving(echo)) as upstream:
        serve_on_both(pair, upstream)
        wires = []
        for _ in range(10):
            sock = socket.create_connection(("127.0.0.1", pair.ports["tls"]))
            wires.append(Wire(context.wrap_socket(sock, server_hostname="w0.tun.test")))
        for i in range(30):
            for wire in wires:
                wire.send(request(f"/{i}", host=f"w{i % 2}.tun.test", method="POST", body=b"t" * 20_000))
            for wire in wires:
                assert wire.read_response().body == f"w{i % 2}.tun.test/{i}".encode() + b"t" * 20_000
        assert pair.server.stats()["handovers_total"] > 200
        for wire in wires:
            wire.close()


def test_visitors_that_leave_during_their_hand_over_leave_nothing(pair: Pair) -> None:
    with ScriptedUpstream(serving(echo)) as upstream:
        serve_on_both(pair, upstream)
        for i in range(300):
            sock = socket.create_connection(("127.0.0.1", pair.ports["http"]))
            wire = Wire(sock)
            wire.send(request(host="w0.tun.test"), request(host="w1.tun.test"), request(host="w0.tun.test"))
            if i % 3 == 0:
                wire.abort()
            else:
                if i % 3 == 1:
                    wire.read_response()
                wire.close()
        pair.assert_idle()
        assert pair.server.stats()["handovers_total"] > 0


def test_half_closed_visitor_is_answered_after_its_hand_over(pair: Pair, visit: Visit) -> None:
    with ScriptedUpstream(serving(echo)) as upstream:
        serve_on_both(pair, upstream)
        for _ in range(20):
            visitor = visit()
            visitor.send(*(request(f"/{i}", host=f"w{i % 2}.tun.test") for i in range(6)))
            visitor.end_sending()
            for i in range(6):
                assert visitor.read_response().body == f"w{i % 2}.tun.test/{i}".encode()
            visitor.assert_closed()


def test_tunnel_whose_link_moves_between_workers_is_followed(pair: Pair, visit: Visit) -> None:
    with ScriptedUpstream(answering(response())) as upstream:
        tunnel = pair.server.open_tunnel()
        pair.server.set_route(RouteKind.HTTP, "m.tun.test", Site(tunnels=(tunnel,)))
        pair.client.set_route(RouteKind.HTTP, "m.tun.test", Site(upstream=upstream.upstream()))
        pair.publish()
        visitor = visit()
        for i in range(6):
            visitor.send(request(host="m.tun.test"))
            assert visitor.read_response().code == "SPK-OFFLINE"
            link = connect_on(pair, i % 2)
            pair.server.bind_link(link, tunnel)
            while True:                                 # the other worker may be asked before the link's has taken it
                visitor.send(request(host="m.tun.test"))
                answer = visitor.read_response()
                if answer.status == 200:
                    break
                assert answer.code == "SPK-OFFLINE"
            pair.server.abort_link(link)
            wait_events(pair.server, lambda event: event.kind == EventKind.LINK_DOWN)
            wait_events(pair.client, lambda event: event.kind == EventKind.LINK_DOWN)


@pytest.mark.parametrize("attempt", range(5))
def test_stop_with_conns_between_workers_is_clean(attempt: int) -> None:
    with ScriptedUpstream(serving(echo)) as upstream, engine_pair(workers=2) as pair:
        serve_on_both(pair, upstream)
        go_on = True

        def swing() -> None:
            try:
                with Wire(socket.create_connection(("127.0.0.1", pair.ports["http"]))) as wire:
                    while go_on:
                        for i in range(2):
                            wire.send(request(host=f"w{i}.tun.test"))
                            wire.read_response()
            except Exception:                           # the engine stops under it: that is what the test does
                return

        threads = [threading.Thread(target=swing, daemon=True) for _ in range(8)]
        for thread in threads:
            thread.start()
        eventually(lambda: pair.server.stats()["handovers_total"] > 50 + 30 * attempt)
        pair.server.stop()
        go_on = False
        for thread in threads:
            thread.join(10)
            assert not thread.is_alive()
