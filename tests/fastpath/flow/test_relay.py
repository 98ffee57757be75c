"""Raw TCP flows through a tunnel: bytes, half-closes, resets, slow readers."""

from __future__ import annotations

import contextlib
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from spokes._fastpath.engine import Upstream
from tests.support.engines import Pair, engine_pair, eventually, listening, publish
from tests.support.upstreams import (
    abort,
    connect,
    echo,
    exchange_bytes,
    is_refused,
    is_reset,
    pattern,
    read_all,
    read_exactly,
    tcp_upstream,
)

WINDOW_BYTES = 262144
# What the engine may hold for a stream whose reader has stopped: its window, CONN_OUT_BYTES_MAX behind its conn, and in
# each of the two chains a block that is partly empty. A window may have grown while the kernel's buffers filled: what
# all have grown by is window_promised_bytes. What it holds at least: CREDIT is due once half a window is left of it.
HELD_BYTES_MAX = WINDOW_BYTES + 65536 + 2 * 16384
HELD_BYTES_MIN = WINDOW_BYTES // 2
LINK_BYTES_MAX = 1 << 20    # of a link, both ways: what one read brought, and what is queued for one write


@pytest.mark.parametrize("total_bytes", [1, 7, 8192, 16375, 16376, 16377, 65535, 65536, 262144, 262145, 3_000_001])
def test_relay_echo_of_any_size_comes_back_whole(total_bytes):
    data = pattern(total_bytes)
    with engine_pair() as pair, tcp_upstream(echo) as upstream:
        port = pair.serve_tcp("echo", upstream.upstream)
        assert exchange_bytes(port, data) == data
        assert upstream.faults == []
        pair.assert_idle()


def test_relay_fifty_megabytes_each_way_at_once_arrive_whole():
    data = pattern(50_000_000)
    with engine_pair() as pair, tcp_upstream(echo) as upstream:
        port = pair.serve_tcp("echo", upstream.upstream)
        assert exchange_bytes(port, data) == data
        pair.assert_idle()
        assert pair.server.tunnel_counters(pair.server_tunnel)[:3] == (len(data), len(data), 0)


def test_relay_many_streams_at_once_keep_their_bytes_apart():
    with engine_pair() as pair, tcp_upstream(echo) as upstream, ThreadPoolExecutor(24) as pool:
        port = pair.serve_tcp("echo", upstream.upstream)
        sent = [pattern(10_000 + 40_009 * number, seed=number) for number in range(24)]
        assert list(pool.map(lambda data: exchange_bytes(port, data), sent)) == sent
        pair.assert_idle()


def test_relay_single_bytes_back_and_forth_are_not_held_back():
    with engine_pair() as pair, tcp_upstream(echo) as upstream:
        with connect(pair.serve_tcp("echo", upstream.upstream)) as sock:
            for number in range(500):
                sock.sendall(bytes([number & 255]))
                assert sock.recv(1) == bytes([number & 255])
        pair.assert_idle()


def test_relay_upstream_that_speaks_first_is_heard():
    with engine_pair() as pair, tcp_upstream(lambda conn: conn.sendall(b"220 ready\r\n")) as upstream:
        with connect(pair.serve_tcp("greeting", upstream.upstream)) as sock:
            assert read_all(sock) == b"220 ready\r\n"
        pair.assert_idle()


def test_relay_unix_socket_upstream_answers(tmp_path: Path):
    path = tmp_path / "upstream.sock"
    with socket.socket(socket.AF_UNIX) as listener, engine_pair() as pair:
        listener.bind(str(path))
        listener.listen()
        port = pair.serve_tcp("unix", Upstream(unix_path=str(path)))
        with connect(port) as visitor:
            visitor.sendall(b"question")
            conn, _ = listener.accept()
            with conn:
                assert read_exactly(conn, 8) == b"question"
                conn.sendall(b"answer")
            assert read_all(visitor) == b"answer"
        pair.assert_idle()


def test_relay_second_address_is_tried_where_the_first_refuses():
    closed = listening()
    refused = closed.getsockname()[1]
    closed.close()
    with engine_pair() as pair, tcp_upstream(echo) as upstream:
        both = Upstream(addresses=[("127.0.0.1", refused), ("127.0.0.1", upstream.port)])
        assert exchange_bytes(pair.serve_tcp("two", both), b"hello") == b"hello"
        pair.assert_idle()


# --- ends -------------------------------------------------------------------------------------------------------------


def test_relay_visitor_half_closes_upstream_sees_the_end_and_still_answers():
    heard: list[bytes] = []

    def late_answer(conn: socket.socket) -> None:
        heard.append(read_all(conn))
        conn.sendall(pattern(500_000))

    with engine_pair() as pair, tcp_upstream(late_answer) as upstream:
        with connect(pair.serve_tcp("late", upstream.upstream)) as sock:
            sock.sendall(b"all I have to say")
            sock.shutdown(socket.SHUT_WR)
            assert read_all(sock) == pattern(500_000)
        assert heard == [b"all I have to say"]
        pair.assert_idle()


def test_relay_upstream_half_closes_visitor_sees_the_end_and_still_speaks():
    heard: list[bytes] = []

    def early_end(conn: socket.socket) -> None:
        conn.sendall(b"that is all")
        conn.shutdown(socket.SHUT_WR)
        heard.append(read_all(conn))

    with engine_pair() as pair, tcp_upstream(early_end) as upstream:
        with connect(pair.serve_tcp("early", upstream.upstream)) as sock:
            assert read_all(sock) == b"that is all"
            sock.sendall(pattern(500_000))
        pair.assert_idle()
        eventually(lambda: heard == [pattern(500_000)])


def test_relay_visitor_resets_upstream_is_reset():
    ended: list[bool] = []
    with engine_pair() as pair, tcp_upstream(lambda conn: ended.append(is_reset(conn))) as upstream:
        sock = connect(pair.serve_tcp("rst", upstream.upstream))
        sock.sendall(b"x")
        eventually(lambda: upstream.conns)
        abort(sock)
        eventually(lambda: ended == [True])
        pair.assert_idle()


def test_relay_upstream_resets_visitor_is_reset():
    with engine_pair() as pair, tcp_upstream(lambda conn: (conn.recv(1), abort(conn))) as upstream:
        with connect(pair.serve_tcp("rst", upstream.upstream)) as sock:
            sock.sendall(b"x")
            assert is_reset(sock)
        pair.assert_idle()


def test_relay_upstream_refused_visitor_is_reset():
    closed = listening()
    port = closed.getsockname()[1]
    closed.close()
    with engine_pair() as pair:
        assert is_refused(pair.serve_tcp("refused", Upstream(addresses=[("127.0.0.1", port)])))
        pair.assert_idle()


def test_relay_upstream_without_address_visitor_is_reset():
    with engine_pair() as pair:
        assert is_refused(pair.serve_tcp("nowhere", Upstream()))
        pair.assert_idle()


def test_relay_port_the_client_does_not_serve_visitor_is_reset():
    with engine_pair() as pair, tcp_upstream(echo) as upstream:
        port = pair.serve_tcp("gone", upstream.upstream)
        pair.client.drop_route(2, port)
        publish(pair.client)
        assert is_refused(port)
        pair.assert_idle()


def endless(conn: socket.socket) -> None:
    block = pattern(1 << 20)
    while True:
        conn.sendall(block)


def test_relay_visitor_aborts_a_large_download_everything_is_given_back_at_once():
    with engine_pair() as pair, tcp_upstream(endless) as upstream:
        port = pair.serve_tcp("endless", upstream.upstream)
        for _ in range(5):
            sock = connect(port)
            read_exactly(sock, 3_000_000)
            abort(sock)
        eventually(lambda: len(upstream.faults) == 5, within_s=2)
        pair.assert_idle()


def test_relay_visitor_that_never_reads_aborts_everything_is_given_back_at_once():
    with engine_pair() as pair, tcp_upstream(endless) as upstream:
        port = pair.serve_tcp("endless", upstream.upstream)
        socks = [connect(port, receive_buffer_bytes=4096) for _ in range(5)]
        eventually(lambda: pair.server.stats()["buffer_bytes"] >= 5 * HELD_BYTES_MIN)
        for sock in socks:
            abort(sock)
        eventually(lambda: len(upstream.faults) == 5, within_s=2)
        pair.assert_idle()


def test_relay_visitor_that_goes_after_everything_was_sent_leaves_nothing():
    """The flow is over, its last bytes wait for a visitor that reads nothing and then resets."""
    with engine_pair() as pair, tcp_upstream(lambda conn: conn.sendall(pattern(1 << 20))) as upstream:
        sock = connect(pair.serve_tcp("short", upstream.upstream), receive_buffer_bytes=4096)
        sock.shutdown(socket.SHUT_WR)
        eventually(lambda: pair.server.stats()["streams_total"] == 1)
        abort(sock)
        pair.assert_idle()


# --- slow readers -----------------------------------------------------------------------------------------------------


def test_relay_slow_reader_stops_its_own_stream_alone():
    data = pattern(20_000_000)
    with engine_pair() as pair, tcp_upstream(lambda conn: conn.sendall(data)) as upstream:
        port = pair.serve_tcp("bulk", upstream.upstream)
        slow = [connect(port, receive_buffer_bytes=4096) for _ in range(8)]
        eventually(lambda: pair.server.stats()["buffer_bytes"] >= 8 * HELD_BYTES_MIN)
        with connect(port) as fast:
            assert read_all(fast) == data
        grown_bytes = pair.server.stats()["window_promised_bytes"]
        assert pair.server.stats()["buffer_bytes"] <= 8 * HELD_BYTES_MAX + LINK_BYTES_MAX + grown_bytes
        for sock in slow:
            assert read_all(sock) == data
            sock.close()
        pair.assert_idle()


def test_relay_slow_upstream_stops_its_own_stream_alone():
    go_on = threading.Event()
    heard: list[int] = []

    def handler(conn: socket.socket) -> None:
        if conn.recv(1) == b"s":
            go_on.wait(30)
        heard.append(len(read_all(conn)))
        conn.sendall(b"ok")

    data = pattern(8_000_000)
    with engine_pair() as pair, tcp_upstream(handler) as upstream, ThreadPoolExecutor(2) as pool:
        port = pair.serve_tcp("upload", upstream.upstream)
        slow = pool.submit(exchange_bytes, port, b"s" + data)
        eventually(lambda: pair.client.stats()["buffer_bytes"] >= HELD_BYTES_MIN)
        assert exchange_bytes(port, b"f" + data) == b"ok"
        assert heard == [len(data)]
        grown_bytes = pair.client.stats()["window_promised_bytes"]
        assert pair.client.stats()["buffer_bytes"] <= HELD_BYTES_MAX + LINK_BYTES_MAX + grown_bytes
        go_on.set()
        assert slow.result(30) == b"ok"
        pair.assert_idle()


def test_relay_reader_that_stops_and_goes_on_gets_every_byte():
    data = pattern(6_000_000)
    with engine_pair() as pair, tcp_upstream(lambda conn: conn.sendall(data)) as upstream:
        with connect(pair.serve_tcp("bulk", upstream.upstream), receive_buffer_bytes=8192) as sock:
            got = b""
            while len(got) < 5_000_000:
                before = pair.server.stats()["passes_total"]
                eventually(lambda before=before: pair.server.stats()["passes_total"] >= before)
                got += read_exactly(sock, 500_000)
            got += read_all(sock)
        assert got == data
        pair.assert_idle()


def visitors_open(pair: Pair) -> int:
    return pair.server.stats()["visitors_open"]


def test_relay_tunnel_without_a_link_visitor_is_reset():
    with engine_pair() as pair, tcp_upstream(echo) as upstream:
        port = pair.serve_tcp("echo", upstream.upstream)
        pair.server.abort_link(pair.server_link)
        eventually(lambda: pair.server.stats()["links_open"] == 0)
        assert is_refused(port)
        eventually(lambda: visitors_open(pair) == 0)
        pair.assert_idle()


def test_relay_visitors_past_the_limit_are_closed_and_the_others_go_on():
    with engine_pair(visitor_count_max=4) as pair, tcp_upstream(echo) as upstream:
        port = pair.serve_tcp("echo", upstream.upstream)
        kept = [connect(port) for _ in range(4)]
        eventually(lambda: visitors_open(pair) == 4)
        with connect(port) as fifth, contextlib.suppress(ConnectionResetError):
            assert fifth.recv(1) == b""
        assert pair.server.stats()["visitors_refused"] >= 1
        for sock in kept:
            sock.sendall(b"still here")
            assert read_exactly(sock, 10) == b"still here"
            sock.close()
        eventually(lambda: visitors_open(pair) == 0)
        assert exchange_bytes(port, b"again") == b"again"
        pair.assert_idle()


def test_relay_streams_past_the_limit_are_refused_and_the_others_go_on():
    with engine_pair(stream_count_max=3) as pair, tcp_upstream(echo) as upstream:
        port = pair.serve_tcp("echo", upstream.upstream)
        kept = [connect(port) for _ in range(3)]
        eventually(lambda: pair.server.stats()["streams_open"] == 3)
        assert is_refused(port)
        for sock in kept:
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
            sock.close()
        pair.assert_idle()
        assert exchange_bytes(port, b"again") == b"again"
        pair.assert_idle()
