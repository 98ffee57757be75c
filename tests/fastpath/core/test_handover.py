"""Two workers: a visitor accepted where its tunnel has no link moves to the worker that has one."""

from __future__ import annotations

import socket
import ssl
from concurrent.futures import ThreadPoolExecutor

from spokes._fastpath.engine import EventKind, ListenerKind, RouteKind, Site, Upstream
from tests.support.engines import DOMAIN, PIN, Pair, engine_pair, eventually, wait_events
from tests.support.upstreams import abort, connect, echo, exchange_bytes, is_refused, pattern, tcp_upstream


def worker_of(link: int) -> int:
    return (link >> 56) - 1


def join_more_links(pair: Pair, count: int) -> list[tuple[int, int]]:
    """(client link, server link) of further links; SO_REUSEPORT chooses the worker."""
    links = []
    for _ in range(count):
        client = pair.client.connect_link("127.0.0.1", pair.ports["tls"], server_name=DOMAIN, pin_sha256=PIN)
        server = wait_events(pair.server, lambda event: event.kind == EventKind.LINK_UP).link
        wait_events(pair.client, lambda event, client=client: event.kind == EventKind.LINK_UP and event.link == client)
        pair.server.bind_link(server, pair.server_tunnel)
        pair.client.bind_link(client, pair.client_tunnel)
        links.append((client, server))
    return links


def test_handover_tcp_visitors_of_both_workers_reach_the_link():
    with engine_pair(workers=2) as pair, tcp_upstream(echo) as upstream, ThreadPoolExecutor(16) as pool:
        port = pair.serve_tcp("echo", upstream.upstream)
        sent = [pattern(1000 + 100 * number, seed=number) for number in range(200)]
        assert list(pool.map(lambda data: exchange_bytes(port, data), sent)) == sent
        assert pair.server.stats()["handovers_total"] > 20
        pair.assert_idle()


def test_handover_http_visitors_of_both_workers_reach_the_link():
    def answer(conn: socket.socket) -> None:
        received = b""
        while data := conn.recv(65536):
            received += data
            while b"\r\n\r\n" in received:
                received = received.split(b"\r\n\r\n", 1)[1]
                conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    request = f"GET / HTTP/1.1\r\nHost: www.{DOMAIN}\r\n\r\n".encode()

    def ask(count: int) -> bytes:
        with connect(pair.ports["http"]) as sock:
            got = b""
            for number in range(count):
                sock.sendall(request)
                while got.count(b"\r\n\r\nok") <= number:
                    got += sock.recv(65536)
            return got

    with engine_pair(workers=2) as pair, tcp_upstream(answer) as upstream, ThreadPoolExecutor(8) as pool:
        pair.serve_http(f"www.{DOMAIN}", upstream.upstream)
        for got in pool.map(ask, [1, 2, 3] * 40):
            assert b"200 OK" in got
        assert pair.server.stats()["handovers_total"] > 10
        pair.assert_idle()


def test_handover_http_over_tls_keeps_its_tls_state():
    def answer(conn: socket.socket) -> None:
        conn.recv(65536)
        conn.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")

    def ask(_: int) -> bytes:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        with connect(pair.ports["tls"]) as sock, context.wrap_socket(sock, server_hostname=f"www.{DOMAIN}") as tls:
            tls.sendall(f"GET / HTTP/1.1\r\nHost: www.{DOMAIN}\r\nConnection: close\r\n\r\n".encode())
            got = b""
            while data := tls.recv(65536):
                got += data
            return got

    with engine_pair(workers=2) as pair, tcp_upstream(answer) as upstream, ThreadPoolExecutor(4) as pool:
        pair.serve_http(f"www.{DOMAIN}", upstream.upstream)
        for got in pool.map(ask, range(40)):
            assert got.endswith(b"ok")
        assert pair.server.stats()["handovers_total"] > 5
        pair.assert_idle()


def test_handover_visitor_that_aborts_on_the_way_leaves_nothing():
    with engine_pair(workers=2) as pair, tcp_upstream(echo) as upstream:
        port = pair.serve_tcp("echo", upstream.upstream)
        for _ in range(300):
            sock = socket.create_connection(("127.0.0.1", port))
            sock.sendall(b"x")
            abort(sock)
        assert exchange_bytes(port, b"after") == b"after"
        pair.assert_idle()
        eventually(lambda: pair.server.stats()["conns_open"] == 1 + 2 + 2 * len(pair.ports))


def test_handover_where_every_worker_refuses_the_visitor_is_reset_and_the_workers_rest():
    """Links on both workers that take no new streams: a visitor goes round once, not for ever."""
    with engine_pair(workers=2) as pair, tcp_upstream(echo) as upstream:
        port = pair.serve_tcp("echo", upstream.upstream)
        links = [(pair.client_link, pair.server_link)]
        while len({worker_of(server) for _, server in links}) < 2:   # the kernel spreads them by their ports
            links += join_more_links(pair, 8)
            assert len(links) < 100, "the kernel gave every link to one worker"
        for _, server in links:
            pair.server.drain_link(server)
        drained: list[int] = []
        eventually(lambda: drained.extend(e.link for e in pair.client.drain_events() if e.kind == EventKind.DRAIN)
                   or len(drained) == len(links))
        for _ in range(20):
            assert is_refused(port)
        assert pair.server.stats()["handovers_total"] <= 40
        pair.assert_idle()


def test_handover_udp_socket_follows_the_link_to_its_worker_with_its_first_datagram():
    with engine_pair(workers=2) as pair, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as upstream:
        upstream.bind(("127.0.0.1", 0))
        upstream.settimeout(5)
        other = 1 - worker_of(pair.server_link)
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("127.0.0.1", 0))
        sock.setblocking(False)
        port = sock.getsockname()[1]
        listener = pair.server.add_listener(ListenerKind.UDP, sock.detach(), worker=other, port=port)
        pair.server.set_route(RouteKind.UDP, port, Site(tunnels=(pair.server_tunnel,)))
        pair.client.set_route(RouteKind.UDP, port, Site(upstream=Upstream(addresses=[upstream.getsockname()])))
        pair.publish()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as visitor:
            visitor.settimeout(5)
            visitor.connect(("127.0.0.1", port))
            visitor.send(b"ping")
            got, peer = upstream.recvfrom(100)
            assert got == b"ping"
            upstream.sendto(b"pong", peer)
            assert visitor.recv(100) == b"pong"
        assert pair.server.stats()["handovers_total"] == 1
        pair.server.remove_listener(listener)
        pair.assert_idle()


def test_handover_stop_while_visitors_are_on_their_way_ends_cleanly():
    for _ in range(5):
        with engine_pair(workers=2) as pair, tcp_upstream(echo) as upstream:
            port = pair.serve_tcp("echo", upstream.upstream)
            socks = [connect(port) for _ in range(100)]
            pair.server.stop()
            for sock in socks:
                sock.close()
