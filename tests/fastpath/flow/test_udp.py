"""UDP services: datagrams through a tunnel and back, several peers, floods, peers that go."""

from __future__ import annotations

import contextlib
import errno
import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from spokes._fastpath.engine import FAULT_CODES, EventKind, ListenerKind, RouteKind, Site, Upstream
from tests.support.engines import Pair, engine_pair, eventually, wait_events
from tests.support.frames import FrameType, Service, connect_peer, frame
from tests.support.threads import join_thread
from tests.support.upstreams import echo, pattern, tcp_upstream

IP_PKTINFO = 8                          # Linux; the socket module has no name for it


@contextmanager
def udp_socket() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(5)
        yield sock


def serve(pair: Pair, upstream: socket.socket) -> int:
    return pair.serve_tcp("udp", Upstream(addresses=[upstream.getsockname()]), ListenerKind.UDP)


@contextmanager
def udp_echo() -> Iterator[socket.socket]:
    with udp_socket() as sock:
        stop = threading.Event()

        def run() -> None:
            while not stop.is_set():
                with contextlib.suppress(OSError):
                    data, peer = sock.recvfrom(65535)
                    sock.sendto(data, peer)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield sock
        finally:
            stop.set()
            with udp_socket() as waker:
                waker.sendto(b"", sock.getsockname())
            join_thread(thread)


def end_peers(pair: Pair) -> None:
    """Flows end when they have been idle for a minute, or with their link."""
    pair.server.abort_link(pair.server_link)
    pair.assert_idle()


@pytest.mark.parametrize("size", [0, 1, 1200, 1472, 9000, 16376, 65507])
def test_udp_datagram_of_any_size_comes_back_whole(size):
    with engine_pair() as pair, udp_echo() as upstream, udp_socket() as visitor:
        visitor.connect(("127.0.0.1", serve(pair, upstream)))
        data = pattern(size)
        visitor.send(data)
        assert visitor.recv(65535) == data
        end_peers(pair)


def test_udp_peers_keep_their_datagrams_apart_and_in_order():
    with engine_pair() as pair, udp_echo() as upstream, contextlib.ExitStack() as stack:
        port = serve(pair, upstream)
        visitors = [stack.enter_context(udp_socket()) for _ in range(50)]
        for visitor in visitors:
            visitor.connect(("127.0.0.1", port))
        for turn in range(20):
            for number, visitor in enumerate(visitors):
                visitor.send(f"{number} {turn}".encode())
            for number, visitor in enumerate(visitors):
                assert visitor.recv(100) == f"{number} {turn}".encode()
        assert pair.server.stats()["streams_open"] == 50
        end_peers(pair)


def test_udp_upstream_sees_one_address_for_each_peer():
    with engine_pair() as pair, udp_socket() as upstream, udp_socket() as first, udp_socket() as second:
        port = serve(pair, upstream)
        seen = []
        for visitor in (first, second, first):
            visitor.sendto(b"who", ("127.0.0.1", port))
            seen.append(upstream.recvfrom(10)[1])
        assert seen[0] == seen[2] != seen[1]
        end_peers(pair)


def test_udp_upstream_that_nobody_listens_at_drops_and_comes_back():
    with engine_pair() as pair, udp_socket() as gone, udp_socket() as visitor:
        address = gone.getsockname()
        port = serve(pair, gone)
        gone.close()
        visitor.connect(("127.0.0.1", port))
        for _ in range(5):
            visitor.send(b"nobody there")
        eventually(lambda: pair.client.stats()["streams_open"] == 1)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as back:
            back.bind(address)
            back.settimeout(5)
            got = b""
            while got != b"back again":
                visitor.send(b"back again")
                got = back.recv(100)
        end_peers(pair)


def test_udp_outcomes_say_whether_anybody_takes_the_datagrams():
    with engine_pair() as pair, udp_socket() as gone, udp_socket() as visitor:
        address = gone.getsockname()
        gone.close()
        place = Upstream(addresses=[address])
        port = pair.serve_tcp("udp", place, ListenerKind.UDP)

        def is_refused() -> bool:
            visitor.sendto(b"nobody there", ("127.0.0.1", port))
            return FAULT_CODES[place.outcomes()[0]] == "SPK-UPSTREAM-REFUSED"

        eventually(is_refused)
        assert not place.has_answered()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as back:
            back.bind(address)
            back.settimeout(5)

            def is_answered() -> bool:
                visitor.sendto(b"there", ("127.0.0.1", port))
                back.sendto(b"here", back.recvfrom(100)[1])
                return place.outcomes()[0] == 0 and place.has_answered()

            eventually(is_answered)
        end_peers(pair)


def test_udp_upstream_without_an_address_is_counted():
    with engine_pair() as pair, udp_socket() as visitor:
        place = Upstream(addresses=[])
        port = pair.serve_tcp("udp", place, ListenerKind.UDP)
        visitor.sendto(b"x", ("127.0.0.1", port))
        eventually(lambda: FAULT_CODES[place.outcomes()[0]] == "SPK-UPSTREAM-NAME")
        end_peers(pair)


@contextmanager
def listening_everywhere(family: socket.AddressFamily) -> Iterator[socket.socket]:
    """All addresses of the host; a socket of IPv6 takes IPv4 as well."""
    sock = socket.socket(family, socket.SOCK_DGRAM)
    if family is socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)       # as the server does, before anything can arrive
    sock.setblocking(False)
    sock.bind(("::" if family is socket.AF_INET6 else "0.0.0.0", 0))
    yield sock


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["ipv4", "dual stack"])
def test_udp_answer_leaves_from_the_address_that_was_asked(family):
    with engine_pair() as pair, udp_echo() as upstream, listening_everywhere(family) as sock, udp_socket() as visitor:
        port = sock.getsockname()[1]
        pair.server.set_route(RouteKind.UDP, port, Site(tunnels=(pair.server_tunnel,)))
        pair.client.set_route(RouteKind.UDP, port, Site(upstream=Upstream(addresses=[upstream.getsockname()])))
        pair.publish()
        pair.server.add_listener(ListenerKind.UDP, sock.detach(), worker=0, port=port)
        asked = [(f"127.0.0.{i % 3 + 1}", port) for i in range(9)]
        for i, address in enumerate(asked):
            visitor.sendto(bytes([i]), address)
        answers = dict(visitor.recvfrom(10) for _ in asked)
        assert answers == {bytes([i]): address for i, address in enumerate(asked)}
        assert pair.server.stats()["streams_open"] == 3     # a flow for each address of ours
        if family is socket.AF_INET6:
            with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as other:
                other.settimeout(5)
                other.sendto(b"six", ("::1", port))
                data, address = other.recvfrom(10)
                assert (data, address[:2]) == (b"six", ("::1", port))
        end_peers(pair)


def test_udp_next_address_gets_the_first_datagram_where_one_refuses():
    with engine_pair() as pair, udp_socket() as gone, udp_echo() as upstream, udp_socket() as first, \
            udp_socket() as second:
        where = [gone.getsockname(), upstream.getsockname()]
        gone.close()
        port = pair.serve_tcp("udp", Upstream(addresses=where), ListenerKind.UDP)
        for visitor in (first, second):
            visitor.connect(("127.0.0.1", port))
            visitor.send(b"only once")
            assert visitor.recv(100) == b"only once"
        fault = wait_events(pair.client, lambda event: event.kind == EventKind.UPSTREAM_FAULT)
        assert fault.code == -errno.ECONNREFUSED
        end_peers(pair)


def test_udp_upstream_whose_addresses_all_refuse_counts_the_drops_and_comes_back():
    with engine_pair() as pair, udp_socket() as one, udp_socket() as other, udp_socket() as visitor:
        where = [one.getsockname(), other.getsockname()]
        port = pair.serve_tcp("udp", Upstream(addresses=where), ListenerKind.UDP)
        one.close()
        other.close()
        visitor.connect(("127.0.0.1", port))
        for _ in range(5):
            visitor.send(b"nobody there")
        eventually(lambda: pair.client.stats()["datagrams_dropped"] > 0)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as back:
            back.bind(where[1])
            back.settimeout(0.1)
            got = b""

            def came_back() -> bool:
                nonlocal got
                visitor.send(b"back again")
                with contextlib.suppress(TimeoutError):
                    got = back.recv(100)
                return got == b"back again"

            eventually(came_back)
        end_peers(pair)


def test_udp_port_without_a_tunnel_drops():
    with engine_pair() as pair, udp_echo() as upstream, udp_socket() as visitor:
        port = serve(pair, upstream)
        pair.server.drop_route(RouteKind.UDP, port)
        pair.server.publish()
        visitor.connect(("127.0.0.1", port))
        for _ in range(20):
            visitor.send(b"x")
        eventually(lambda: pair.server.stats()["datagrams_dropped"] > 0)
        assert pair.server.stats()["streams_total"] == 0
        pair.assert_idle()


def test_udp_port_the_client_does_not_serve_is_refused_and_forgotten():
    with engine_pair() as pair, udp_socket() as upstream, udp_socket() as visitor:
        port = serve(pair, upstream)
        pair.client.drop_route(RouteKind.UDP, port)
        pair.client.publish()
        visitor.connect(("127.0.0.1", port))
        visitor.send(b"x")
        eventually(lambda: pair.server.stats()["streams_total"] >= 1)
        pair.assert_idle()


def test_udp_peers_come_back_after_their_link_went():
    with engine_pair() as pair, udp_echo() as upstream, udp_socket() as visitor:
        visitor.connect(("127.0.0.1", serve(pair, upstream)))
        visitor.send(b"one")
        assert visitor.recv(10) == b"one"
        pair.server.abort_link(pair.server_link)
        pair.assert_idle()
        eventually(lambda: pair.client.stats()["links_open"] == 0)
        pair.client.drain_events()
        pair.server.drain_events()
        pair.connect()
        visitor.send(b"two")
        assert visitor.recv(10) == b"two"
        end_peers(pair)


def test_udp_flood_over_a_link_that_does_not_read_drops_the_oldest_and_stays_bounded():
    with engine_pair() as pair, udp_socket() as visitor:
        tunnel = pair.server.open_tunnel()
        port = pair.listen("flood", ListenerKind.UDP)
        pair.server.set_route(RouteKind.UDP, port, Site(tunnels=(tunnel,)))
        pair.server.publish()
        peer = connect_peer(pair.ports["tls"])
        link = wait_events(pair.server, lambda event: event.kind == EventKind.LINK_UP).link
        pair.server.bind_link(link, tunnel)
        peer.ping()
        visitor.connect(("127.0.0.1", port))
        deadline = time.monotonic() + 20
        number = 0
        while pair.server.stats()["datagrams_dropped"] < 500:
            assert time.monotonic() < deadline
            visitor.send(number.to_bytes(4, "big") + bytes(8000))
            number += 1
        assert pair.server.stats()["buffer_bytes"] <= 1 << 20
        visitor.send(number.to_bytes(4, "big"))
        # The newest arrives; what is missing is in between.
        assert peer.read(FrameType.OPEN).payload[0] == Service.UDP
        seen = [int.from_bytes(peer.read(FrameType.DATAGRAM).payload[:4], "big")]
        while seen[-1] != number:
            seen.append(int.from_bytes(peer.read(FrameType.DATAGRAM).payload[:4], "big"))
        assert seen == sorted(seen)
        assert seen[0] == 0
        assert len(seen) < number
        peer.close()
        eventually(lambda: pair.server.stats()["links_open"] == 1)
        pair.assert_idle()


def test_udp_stream_takes_no_data_and_its_fin_ends_it():
    """DATA means nothing on a UDP stream; what a peer may do with it is bounded by credit."""
    with engine_pair() as pair, udp_socket() as visitor:
        tunnel = pair.server.open_tunnel()
        port = pair.listen("odd", ListenerKind.UDP)
        pair.server.set_route(RouteKind.UDP, port, Site(tunnels=(tunnel,)))
        pair.server.publish()
        peer = connect_peer(pair.ports["tls"])
        link = wait_events(pair.server, lambda event: event.kind == EventKind.LINK_UP).link
        pair.server.bind_link(link, tunnel)
        peer.ping()
        visitor.connect(("127.0.0.1", port))
        visitor.send(b"x")
        stream = peer.read(FrameType.OPEN).stream
        peer.send(frame(FrameType.DATA, stream, bytes(60000)) * 4, frame(FrameType.DATAGRAM, stream, b"y"))
        assert visitor.recv(10) == b"y"
        peer.send(frame(FrameType.FIN, stream))
        peer.read(FrameType.RESET)
        pair.assert_idle()
        visitor.send(b"z")
        assert peer.read(FrameType.OPEN).stream == stream + 2
        peer.close()
        eventually(lambda: pair.server.stats()["links_open"] == 1)
        pair.assert_idle()


PLACES = 4096                           # UDP_PEER_COUNT_MAX
UNASSURED_S = 1.0                       # UNASSURED_MS


class Answering:
    """The client's end of a UDP service by hand, and visitors of it: answers the words that a test asks it to."""

    def __init__(self, pair: Pair) -> None:
        tunnel = pair.server.open_tunnel()
        self.pair = pair
        self.port = pair.listen("places", ListenerKind.UDP)
        pair.server.set_route(RouteKind.UDP, self.port, Site(tunnels=(tunnel,)))
        pair.server.publish()
        self.peer = connect_peer(pair.ports["tls"])
        link = wait_events(pair.server, lambda event: event.kind == EventKind.LINK_UP).link
        pair.server.bind_link(link, tunnel)
        self.peer.ping()

    def send(self, source: str, words: bytes, count: int = 1) -> None:
        """So many visitors of this address say one word, and are heard of no more."""
        for _ in range(count):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.bind((source, 0))
                sock.sendto(words, ("127.0.0.1", self.port))

    def hear(self, words: bytes) -> int:
        """The stream that these words come on."""
        while (one := self.peer.read(FrameType.DATAGRAM)).payload != words:
            pass
        return one.stream

    def fill(self, source: Callable[[int], str]) -> None:
        number = 0
        while self.pair.server.stats()["streams_open"] < PLACES:
            assert number < 100 * PLACES
            self.send(source(number), b"flood", 20)
            number += 1
            if number % 10 == 0:        # a link ends at 100 of them in a second
                self.peer.ping()

    def end(self) -> None:
        self.peer.close()
        eventually(lambda: self.pair.server.stats()["links_open"] == 1)
        self.pair.assert_idle()


def test_udp_address_that_took_every_place_gives_one_back_to_each_newcomer():
    with engine_pair() as pair:
        answering = Answering(pair)
        answering.fill(lambda _: "127.0.0.66")
        for number in range(10):
            word = b"newcomer %d" % number
            answering.send(f"127.0.1.{number + 1}", word)
            answering.hear(word)
        assert pair.server.stats()["streams_open"] == PLACES
        answering.end()


def test_udp_newcomer_gets_the_place_of_one_that_has_not_shown_that_it_is_there():
    with engine_pair() as pair:
        answering = Answering(pair)
        answering.fill(lambda number: f"127.{1 + number % 200}.{number // 200 % 250}.7")
        sources = itertools.cycle(f"127.0.2.{number}" for number in range(1, 255))     # of whatever share
        streams = pair.server.stats()["streams_total"]
        eventually(
            lambda: answering.send(next(sources), b"newcomer") or pair.server.stats()["streams_total"] > streams + 500,
            within_s=UNASSURED_S + 20,
        )
        assert pair.server.stats()["streams_open"] == PLACES
        answering.end()


def datagram_count(pair: Pair) -> int:
    return pair.server.stats()["datagrams_in"] + pair.server.stats()["datagrams_dropped"]


def test_udp_peers_leave_a_quarter_of_the_tunnels_visitors_to_others():
    with engine_pair(tunnel_stream_count_max=8) as pair, udp_echo() as upstream, contextlib.ExitStack() as stack:
        port = serve(pair, upstream)
        for number in range(1, 41):
            visitor = stack.enter_context(udp_socket())
            visitor.sendto(b"x", ("127.0.0.1", port))
            eventually(lambda number=number: datagram_count(pair) >= number)
        assert pair.server.stats()["streams_open"] == 6
        newcomer = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        newcomer.settimeout(5)
        newcomer.bind(("127.0.0.9", 0))
        newcomer.sendto(b"newcomer", ("127.0.0.1", port))   # of an address that holds none
        assert newcomer.recv(10) == b"newcomer"
        assert pair.server.stats()["streams_open"] == 6
        end_peers(pair)


def test_tunnel_crowded_by_one_address_has_places_for_peers_of_another():
    with (
        engine_pair(tunnel_stream_count_max=8) as pair,
        tcp_upstream(echo) as upstream,
        udp_echo() as datagrams,
        contextlib.ExitStack() as stack,
    ):
        tcp_port, port = pair.serve_tcp("echo", upstream.upstream), serve(pair, datagrams)
        for number in range(1, 7):
            stack.enter_context(socket.create_connection(("127.0.0.1", tcp_port), 10, source_address=("127.0.0.9", 0)))
            eventually(lambda number=number: pair.server.stats()["streams_open"] == number)
        visitor = stack.enter_context(udp_socket())
        visitor.sendto(b"here", ("127.0.0.1", port))
        assert visitor.recv(10) == b"here"
        with socket.create_connection(("127.0.0.1", tcp_port), 10, source_address=("127.0.0.8", 0)) as last:
            last.sendall(b"here")
            assert last.recv(10) == b"here"
        end_peers(pair)


def test_udp_peer_that_is_served_stays_while_forged_sources_take_every_place():
    with engine_pair() as pair, udp_socket() as served:
        answering = Answering(pair)
        served.connect(("127.0.0.1", answering.port))
        streams = set()
        for word in (b"one", b"two"):                   # the second one after an answer
            served.send(word)
            streams.add(stream := answering.hear(word))
            answering.peer.send(frame(FrameType.DATAGRAM, stream, word))
            assert served.recv(10) == word
        answering.fill(lambda number: f"127.{1 + number % 200}.{number // 200 % 250}.7")
        for number in range(500):
            answering.send(f"127.{1 + number % 200}.{250 + number // 200}.7", b"flood", 5)
            if number % 20 == 0:
                answering.peer.ping()
        answering.peer.ping()
        served.send(b"three")
        streams.add(answering.hear(b"three"))
        assert len(streams) == 1
        answering.end()


IDLE_S = 1.2


def kept_alive(pair: Pair, say: Callable[[], object]) -> bool:
    """Whether its one flow outlives two and a half idle times in which `say` is called again and again. None of the
    pauses between calls may come near an idle time: where this host was too busy for that, it is tried again."""
    for _ in range(10):
        begun = last = time.monotonic()
        longest_s = 0.0
        while last - begun < 2.5 * IDLE_S:
            say()
            time.sleep(IDLE_S / 20)
            now = time.monotonic()
            longest_s, last = max(longest_s, now - last), now
        if longest_s < IDLE_S / 2:
            stats = [engine.stats() for engine in (pair.server, pair.client)]
            return all(one["streams_total"] == one["streams_open"] == 1 for one in stats)
    raise AssertionError("this host is too busy to tell")


@pytest.mark.parametrize("speaker", ["visitor", "upstream"])
def test_udp_flow_lives_while_either_side_speaks_and_ends_when_none_does(speaker):
    with engine_pair(udp_idle_s=IDLE_S) as pair, udp_socket() as upstream, udp_socket() as visitor:
        visitor.connect(("127.0.0.1", serve(pair, upstream)))
        visitor.send(b"x")
        _, flow = upstream.recvfrom(10)
        say = (lambda: visitor.send(b"q")) if speaker == "visitor" else (lambda: upstream.sendto(b"a", flow))
        assert kept_alive(pair, say)
        pair.assert_idle()


@pytest.mark.slow
def test_udp_peer_that_is_silent_for_a_minute_is_forgotten():
    with engine_pair() as pair, udp_echo() as upstream, udp_socket() as visitor:
        visitor.connect(("127.0.0.1", serve(pair, upstream)))
        visitor.send(b"x")
        assert visitor.recv(10) == b"x"
        eventually(lambda: pair.server.stats()["streams_open"] == 0, within_s=80)
        pair.assert_idle()
