"""Shares of the pool, for tunnels and visitor addresses; visitors of a tunnel; raw flows in a ring."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections import Counter

import pytest
from spokes._fastpath.hooks.base_hooks import BLOCK_SIZE, ChainHook

from spokes._fastpath.engine import FAULT_CODES, ListenerKind, RouteKind, Site, Upstream
from tests.fastpath.link.test_link import Bench, assert_broken, hostile_client, hostile_server
from tests.support.engines import Pair, engine_pair, eventually, publish
from tests.support.frames import WINDOW_BYTES, FrameType, credit, frame, open_frame
from tests.support.upstreams import (
    abort,
    connect,
    echo,
    exchange_bytes,
    is_refused,
    is_reset,
    pattern,
    read_all,
    tcp_upstream,
)

LIMIT = 8 << 20
CROWD = "127.0.0.2"
TUNNEL_HALVES, VISITOR_HALVES = 4, 2
UNDERSTOOD = frame(FrameType.WINDOW)


def window(stream: int, limit: int) -> bytes:
    return frame(FrameType.WINDOW, stream, limit.to_bytes(4, "big"))


def small_port(pair: Pair, tunnel: int) -> int:
    """A TCP port of the tunnel whose conns hold next to nothing in the kernel."""
    (sock,) = pair.bind(ListenerKind.TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    port = sock.getsockname()[1]
    pair.server.set_route(RouteKind.TCP, port, Site(tunnels=(tunnel,)))
    publish(pair.server)
    pair.server.add_listener(ListenerKind.TCP, sock.detach(), worker=0, port=port)
    return port


def stand_still(port: int) -> socket.socket:
    """A visitor of the crowd's address that reads nothing."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.bind((CROWD, 0))
    sock.connect(("127.0.0.1", port))
    return sock


# --- the pool's -------------------------------------------------------------------------------------------------------


def test_share_shrinks_with_what_is_used_and_never_below_its_floor():
    door = ChainHook(1024)
    whole, floor = 1024 * 7 // 8 * BLOCK_SIZE, 2 * BLOCK_SIZE
    assert door.share(TUNNEL_HALVES) == 2 * whole
    assert door.share(VISITOR_HALVES) == whole
    door.append(bytes(400 * BLOCK_SIZE))
    assert door.chain_blocks == 400
    assert door.share(VISITOR_HALVES) == whole - 400 * BLOCK_SIZE
    door.append(bytes(600 * BLOCK_SIZE))
    assert door.share(TUNNEL_HALVES) == door.share(VISITOR_HALVES) == floor
    door.drop(1000 * BLOCK_SIZE)
    assert door.chain_blocks == 0
    assert door.share(VISITOR_HALVES) == whole


def fill(bench: Bench, port: int, count: int) -> list[socket.socket]:
    """Readers of nothing, each with a whole first window on its way to it unless it is refused."""
    visitors, stats = [], bench.engine.stats
    for number in range(1, count + 1):
        visitors.append(stand_still(port))
        eventually(lambda number=number: stats()["streams_total"] + stats()["streams_refused"] == number)
        stream = 2 * stats()["streams_total"]
        if stats()["streams_refused"] == 0:
            bench.peer.send(*[frame(FrameType.DATA, stream, bytes(WINDOW_BYTES // 8))] * 8)
            bench.peer.ping()
    return visitors


def test_share_crowd_behind_an_old_client_gives_back_what_it_holds_above_it():
    """The peer knows no WINDOW: forty first windows are more than the pool, and their visitors read nothing."""
    with hostile_client(memory_limit_bytes=LIMIT) as bench:
        server = bench.pair.server
        port = small_port(bench.pair, bench.tunnel)
        visitors = fill(bench, port, 40)
        assert server.stats()["streams_reclaimed"] + server.stats()["streams_refused"] > 0
        assert server.stats()["buffer_bytes"] <= LIMIT * 3 // 4
        assert server.stats()["links_open"] == 2
        for visitor in visitors:
            abort(visitor)


def test_share_crowd_that_reads_nothing_is_left_alone_in_small_windows_and_nobody_waits_for_it():
    data = pattern(3_000_000)
    with (
        engine_pair(memory_limit_bytes=LIMIT) as pair,
        tcp_upstream(lambda conn: conn.sendall(data)) as upstream,
    ):
        port = small_port(pair, pair.server_tunnel)
        pair.client.set_route(RouteKind.TCP, port, Site(upstream=upstream.upstream))
        publish(pair.client)
        crowd = [stand_still(port) for _ in range(60)]
        eventually(lambda: pair.server.stats()["streams_open"] == 60)
        for _ in range(3):
            with connect(port) as visitor:
                assert read_all(visitor) == data
        eventually(lambda: pair.server.stats()["streams_open"] == 60)
        stats = pair.server.stats()
        assert (stats["streams_reclaimed"], stats["streams_refused"]) == (0, 0)
        assert stats["buffer_bytes"] < LIMIT // 2
        for sock in crowd:
            abort(sock)
        pair.assert_idle()


# --- the kernel's -----------------------------------------------------------------------------------------------------

KERNEL_LIMIT = 1 << 30
KERNEL_SHORT = KERNEL_LIMIT // 100 * 80     # a holder may have three quarters of all streams then: three beside one


def test_share_of_kernel_memory_shrinks_with_what_is_used_and_never_below_its_floor():
    door = ChainHook(1024)
    assert (door.kernel_share_passed(1000), door.kernel_excess(1000)) == (False, 0)
    door.note_kernel(500, 1000, 1000)
    assert (door.kernel_share_passed(1000), door.kernel_excess(1000)) == (False, 0)
    door.note_kernel(80_000, 100_000, 1000)
    assert (door.kernel_share_passed(750), door.kernel_share_passed(751)) == (False, True)
    assert 1000 * 5 // 80 - 4 <= door.kernel_excess(1000) <= 1000 * 5 // 80 + 1
    door.note_kernel(200_000, 100_000, 1000)        # a sixty-fourth of the limit counts as free
    assert (door.kernel_share_passed(23), door.kernel_share_passed(24)) == (False, True)
    assert 1000 * 5 // 8 - 4 <= door.kernel_excess(1000) <= 1000 * 5 // 8 + 1


def test_share_of_kernel_memory_crowd_that_stands_still_gives_back_what_is_above_it_at_the_server():
    with hostile_client() as bench, tcp_upstream(lambda conn: conn.sendall(bytes(1 << 20))) as upstream:
        pair, server = bench.pair, bench.pair.server
        port = small_port(pair, bench.tunnel)
        crowd = fill(bench, port, 20)
        with connect(pair.serve_tcp("still", upstream.upstream)) as neighbour:
            eventually(lambda: server.stats()["streams_open"] == 21)

            def reclaimed() -> int:
                server.note_kernel_memory(KERNEL_SHORT, KERNEL_LIMIT)
                return server.stats()["streams_reclaimed"]

            eventually(lambda: reclaimed() == 17)
            eventually(lambda: server.stats()["visitors_open"] == 4)
            for sock in crowd:
                abort(sock)
            assert len(read_all(neighbour)) == 1 << 20


def test_share_of_kernel_memory_crowd_without_credit_gives_back_what_is_above_it_at_the_client():
    with (
        engine_pair(memory_limit_bytes=LIMIT) as pair,
        tcp_upstream(lambda conn: conn.sendall(bytes(4 << 20))) as service,
        tcp_upstream(echo) as other,
    ):
        port = small_port(pair, pair.server_tunnel)
        pair.client.set_route(RouteKind.TCP, port, Site(upstream=service.upstream))
        publish(pair.client)
        crowd = [stand_still(port) for _ in range(20)]
        with connect(pair.serve_tcp("echo", other.upstream)) as neighbour:
            eventually(lambda: pair.client.stats()["streams_open"] == 21)

            def reclaimed() -> int:
                pair.client.note_kernel_memory(KERNEL_SHORT, KERNEL_LIMIT)
                return pair.client.stats()["streams_reclaimed"]

            eventually(lambda: reclaimed() >= 17)
            eventually(lambda: pair.client.stats()["upstreams_open"] <= 4)
            neighbour.sendall(b"still there")
            assert neighbour.recv(64) == b"still there"
        for sock in crowd:
            abort(sock)
        pair.assert_idle()


# --- WINDOW -----------------------------------------------------------------------------------------------------------


def test_window_is_sent_to_a_peer_that_knows_it_and_first_windows_are_smaller():
    with hostile_client(memory_limit_bytes=LIMIT) as bench:
        port = small_port(bench.pair, bench.tunnel)
        bench.peer.send(UNDERSTOOD)
        bench.peer.ping()
        with stand_still(port):
            opened = bench.peer.read(FrameType.OPEN, FrameType.WINDOW)
            narrowed = bench.peer.next_frame()
            assert (opened.type, narrowed.type, narrowed.stream) == (FrameType.OPEN, FrameType.WINDOW, opened.stream)
            limit = int.from_bytes(narrowed.payload, "big")
            assert 0 < limit < WINDOW_BYTES
            # What was on its way already ends nothing.
            bench.peer.send(*[frame(FrameType.DATA, opened.stream, bytes(WINDOW_BYTES // 8))] * 8)
            bench.peer.ping()
        bench.peer.read(FrameType.RESET)


def test_window_of_the_peer_holds_until_its_credit():
    with hostile_server() as bench:
        bench.peer.send(UNDERSTOOD, open_frame(2), window(2, 1000), frame(FrameType.DATA, 2, bytes(5000)))
        got = 0
        while got < 1000:
            got += len(bench.peer.read(FrameType.DATA).payload)
        bench.peer.ping()               # nothing else has come
        assert got == 1000
        bench.peer.send(credit(2, 5000))
        while got < 5000:
            got += len(bench.peer.read(FrameType.DATA).payload)
        bench.peer.send(frame(FrameType.RESET, 2, b"\0\1"))


@pytest.mark.parametrize(
    "text",
    [
        window(2, WINDOW_BYTES + 1),
        window(2, 1000) * 2,
        credit(2, WINDOW_BYTES + 1) + window(2, 1000),
        frame(FrameType.WINDOW, 2, b"12"),
        frame(FrameType.WINDOW, 0, b"1234"),
        window(4, 1000),
    ],
    ids=["larger", "twice", "behind credit", "short", "on the link with a payload", "of no stream"],
)
def test_window_that_breaks_the_protocol_ends_the_link(text):
    with hostile_client() as bench, connect(bench.port):
        bench.peer.read(FrameType.OPEN)
        bench.peer.send(text)
        assert_broken(bench)


# --- visitors of a tunnel ---------------------------------------------------------------------------------------------


def test_tunnel_with_its_share_of_visitors_is_refused_more_and_others_are_not():
    with engine_pair(tunnel_stream_count_max=2) as pair, tcp_upstream(echo) as upstream:
        port = pair.serve_tcp("echo", upstream.upstream)
        pair.serve_http("a.tun.test", upstream.upstream)
        inside = [connect(port), connect(port)]
        eventually(lambda: pair.server.stats()["streams_open"] == 2)
        assert is_refused(port)
        with connect(pair.ports["http"]) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: a.tun.test\r\nConnection: close\r\n\r\n")
            answer = read_all(sock)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"SPK-LIMIT" in answer
        assert pair.server.stats()["streams_refused"] == 2
        inside.pop().close()
        eventually(lambda: pair.server.stats()["streams_open"] == 1)
        assert exchange_bytes(port, b"room again") == b"room again"
        inside.pop().close()
        pair.assert_idle()


def stays(stack: contextlib.ExitStack, address: str, port: int) -> bool:
    """Whether a visitor of this address is served; it is there until the stack ends."""
    try:
        sock = socket.create_connection(("127.0.0.1", port), timeout=10, source_address=(address, 0))
        stack.enter_context(sock)
        sock.sendall(b"here")
        return sock.recv(4) == b"here"
    except ConnectionError:                  # it may be over before the handshake is
        return False


def test_tunnel_keeps_its_last_quarter_for_addresses_that_hold_less():
    with (
        engine_pair(tunnel_stream_count_max=8) as pair,
        tcp_upstream(echo) as upstream,
        contextlib.ExitStack() as stack,
    ):
        port = pair.serve_tcp("echo", upstream.upstream)
        served = Counter[str]()
        for address in (*[CROWD] * 9, *["127.0.0.4"] * 3, "127.0.0.5", "127.0.0.6"):
            served[address] += stays(stack, address, port)
        assert served == {CROWD: 6, "127.0.0.4": 1, "127.0.0.5": 1, "127.0.0.6": 0}
        stack.close()
        pair.assert_idle()
        with contextlib.ExitStack() as again:           # everything was given back
            assert [stays(again, CROWD, port) for _ in range(7)] == [True] * 6 + [False]


def test_tunnel_whose_visitors_come_through_a_proxy_in_front_is_filled():
    with (
        engine_pair(tunnel_stream_count_max=8, unmetered_networks=[f"{CROWD}/32"]) as pair,
        tcp_upstream(echo) as upstream,
        contextlib.ExitStack() as stack,
    ):
        port = pair.serve_tcp("echo", upstream.upstream)
        assert [stays(stack, CROWD, port) for _ in range(9)] == [True] * 8 + [False]


# --- raw flows in a ring ----------------------------------------------------------------------------------------------


def elsewhere(pair: Pair, address: str = "127.0.0.3", *, udp: bool = False) -> int:
    """A port at an address that is not the one the link leads to, as where addresses are translated."""
    sock = socket.socket(type=socket.SOCK_DGRAM if udp else socket.SOCK_STREAM)
    sock.setblocking(False)
    sock.bind((address, 0))
    if not udp:
        sock.listen(64)
    port = sock.getsockname()[1]
    pair.server.set_route(RouteKind.UDP if udp else RouteKind.TCP, port, Site(tunnels=(pair.server_tunnel,)))
    publish(pair.server)
    kind = ListenerKind.UDP if udp else ListenerKind.TCP
    pair.server.add_listener(kind, sock.detach(), worker=0, port=port)
    return port


def lead(pair: Pair, port: int, address: str, to: int, *, udp: bool = False) -> Upstream:
    there = Upstream(addresses=[(address, to)])
    pair.client.set_route(RouteKind.UDP if udp else RouteKind.TCP, port, Site(upstream=there))
    publish(pair.client)
    return there


def is_loop(upstream: Upstream) -> bool:
    """And the ends of the flows around it are no faults of their own."""
    last, _, counts = upstream.outcomes()
    return FAULT_CODES[last] == "SPK-LOOP" and sum(counts) == counts[last]


def is_ended(address: str, port: int) -> bool:
    try:
        sock = socket.create_connection((address, port), timeout=10)
    except ConnectionResetError:             # it may be over before the handshake is
        return True
    with sock:
        return is_reset(sock)


def test_loop_to_the_server_itself_is_ended_before_anything_is_dialled():
    with engine_pair() as pair:
        port = pair.serve_tcp("loop", Upstream(addresses=[("127.0.0.1", 1)]))
        lead(pair, port, "127.0.0.1", port)
        assert is_refused(port)
        assert pair.client.stats()["loops_total"] == 1
        assert pair.client.stats()["upstreams_total"] == 0
        pair.assert_idle()


def test_loop_is_the_last_that_came_of_its_upstream():
    with engine_pair() as pair:
        port = elsewhere(pair)
        there = Upstream(addresses=[("127.0.0.3", port)])
        pair.client.set_route(RouteKind.TCP, port, Site(upstream=there))
        pair.publish()
        for count in (1, 2):
            assert is_ended("127.0.0.3", port)
            pair.assert_idle()
            last, _, counts = there.outcomes()
            assert (FAULT_CODES[last], counts[last]) == ("SPK-LOOP", count)
            assert sum(counts) == count         # and the ends of the flows around it are no faults of their own


def test_loop_of_two_ports_by_another_address_is_found_by_the_dialled_socket():
    with engine_pair() as pair:
        one, two = elsewhere(pair), elsewhere(pair)
        there = [lead(pair, one, "127.0.0.3", two), lead(pair, two, "127.0.0.3", one)]
        for count in (1, 2):
            assert is_ended("127.0.0.3", one)
            assert pair.client.stats()["loops_total"] == pair.server.stats()["loops_total"] == count
            assert pair.client.stats()["upstreams_total"] == 3 * count
            pair.assert_idle()
            assert all(map(is_loop, there))


def test_loop_of_three_ports_is_told_of_each():
    with engine_pair() as pair:
        ports = [elsewhere(pair) for _ in range(3)]
        there = [lead(pair, port, "127.0.0.3", ports[index - 1]) for index, port in enumerate(ports)]
        assert is_ended("127.0.0.3", ports[0])
        pair.assert_idle()
        assert all(map(is_loop, there))


def test_loop_of_datagrams_to_the_server_itself_is_ended_before_any_is_sent():
    with engine_pair() as pair, socket.socket(type=socket.SOCK_DGRAM) as visitor:
        port = elsewhere(pair, "127.0.0.1", udp=True)
        there = lead(pair, port, "127.0.0.1", port, udp=True)
        visitor.sendto(b"x", ("127.0.0.1", port))
        eventually(lambda: pair.client.stats()["loops_total"] == 1)
        assert is_loop(there)
        pair.assert_idle()
        assert pair.client.stats()["datagrams_out"] == 0


def test_loop_of_datagrams_over_two_ports_by_another_address_is_found_and_told_of_both():
    with engine_pair() as pair, socket.socket(type=socket.SOCK_DGRAM) as visitor:
        one, two = elsewhere(pair, udp=True), elsewhere(pair, udp=True)
        there = [lead(pair, one, "127.0.0.3", two, udp=True), lead(pair, two, "127.0.0.3", one, udp=True)]
        for count in (1, 2, 3):
            visitor.sendto(b"x", ("127.0.0.3", one))
            eventually(lambda count=count: pair.client.stats()["loops_total"] == count)
            assert pair.client.stats()["datagrams_out"] == 3 * count
        eventually(lambda: all(map(is_loop, there)))
        assert pair.server.stats()["streams_open"] == 3
        pair.server.abort_link(pair.server_link)
        pair.assert_idle()


def test_datagrams_of_one_port_behind_another_are_no_loop():
    with engine_pair() as pair, socket.socket(type=socket.SOCK_DGRAM) as visitor:
        one, two = elsewhere(pair, udp=True), elsewhere(pair, udp=True)
        lead(pair, one, "127.0.0.3", two, udp=True)
        with socket.socket(type=socket.SOCK_DGRAM) as service:
            service.bind(("127.0.0.1", 0))
            service.settimeout(10)
            lead(pair, two, *service.getsockname(), udp=True)
            visitor.sendto(b"through both", ("127.0.0.3", one))
            data, peer = service.recvfrom(100)
            service.sendto(data, peer)
            visitor.settimeout(10)
            assert visitor.recv(100) == b"through both"
        assert pair.client.stats()["loops_total"] == 0
        pair.server.abort_link(pair.server_link)
        pair.assert_idle()


IP_LOCAL_PORT_RANGE = 51                     # Linux 6.3; Python has no name for it


def connect_from(own_port: int, port: int) -> socket.socket:
    """A visitor with a number that another conn has too, as the kernel hands them out when many are open."""
    sock = socket.socket()
    sock.settimeout(10)
    try:
        sock.setsockopt(socket.IPPROTO_IP, IP_LOCAL_PORT_RANGE, struct.pack("I", own_port << 16 | own_port))
    except OSError:
        pytest.skip("this kernel lets nobody choose")
    sock.connect(("127.0.0.1", port))
    return sock


def test_visitors_of_the_clients_own_host_with_the_numbers_of_its_flows_are_no_loop():
    with engine_pair() as pair, tcp_upstream(echo) as upstream:
        port = pair.serve_tcp("echo", upstream.upstream)
        visitors = [connect(port)]
        for count in range(1, 8):
            visitors[-1].sendall(b"here")
            assert visitors[-1].recv(4) == b"here"
            assert len(upstream.conns) == count
            visitors.append(connect_from(upstream.conns[-1].getpeername()[1], port))
        assert pair.client.stats()["loops_total"] == 0
        for visitor in visitors:
            visitor.close()
        pair.assert_idle()


def test_two_ports_one_behind_the_other_are_no_loop():
    with engine_pair() as pair, tcp_upstream(echo) as upstream:
        one, two = elsewhere(pair), elsewhere(pair)
        lead(pair, one, "127.0.0.3", two)
        pair.client.set_route(RouteKind.TCP, two, Site(upstream=upstream.upstream))
        publish(pair.client)
        with socket.create_connection(("127.0.0.3", one), timeout=10) as sock:
            sock.sendall(b"through both")
            sock.shutdown(socket.SHUT_WR)
            assert read_all(sock) == b"through both"
        assert pair.client.stats()["loops_total"] == 0
        pair.assert_idle()
