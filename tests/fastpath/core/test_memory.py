"""The memory limit: nothing grows past it, nothing is lost, nobody waits for ever; and what engines leave behind."""

from __future__ import annotations

import contextlib
import itertools
import os
import queue
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from spokes._fastpath.hooks.base_hooks import BLOCK_SIZE
from spokes._fastpath.hooks.flow_hooks import STRUCT_BYTES

from spokes._fastpath.engine import Engine, EventKind, ListenerKind, RouteKind, Site, Upstream
from tests.support.engines import Pair, engine_pair, eventually, listening
from tests.support.sanitized import IS_SANITIZED
from tests.support.threads import join_thread
from tests.support.upstreams import (
    abort,
    connect,
    echo,
    exchange_bytes,
    is_refused,
    pattern,
    read_all,
    read_exactly,
    tcp_upstream,
)

LIMIT = 8 << 20
SLACK = 1 << 20     # one read of a link and a block for each frame it was in the middle of
# Sixty windows of the usual size are twice LIMIT.
STOPPED = 60
# So many blocks, one for each first window of the smallest size, are more than a tunnel's share of LIMIT.
CROWD = 400
PROVING = 1 << 20   # of bytes: a conn that has carried half of it is one whose visitor reads
TCP_NOTSENT_LOWAT, SO_BUF_LOCK, SOCK_RCVBUF_LOCK = 25, 72, 2    # of Linux; Python has no names for them
SHARE = LIMIT // 2  # of a tunnel that fills the pool alone: a little more, seven twelfths


@contextmanager
def high_water(engine: Engine) -> Iterator[list[int]]:
    """The most buffer_bytes seen, in a list of one."""
    top, stop = [0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.001):
            top[0] = max(top[0], engine.stats()["buffer_bytes"])

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield top
    finally:
        stop.set()
        join_thread(thread)


def small_listener(pair: Pair, kind: ListenerKind) -> int:
    """A port whose conns hold next to nothing in the kernel, so that what waits, waits in the engine."""
    port = 0
    for worker in range(pair.server.worker_count):
        sock = listening(port=port)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        port = sock.getsockname()[1]
        pair.server.add_listener(kind, sock.detach(), worker=worker, port=port)
    return port


def listen_with_small_buffers(pair: Pair, upstream: Upstream) -> int:
    port = small_listener(pair, ListenerKind.TCP)
    pair.server.set_route(RouteKind.TCP, port, Site(tunnels=(pair.server_tunnel,)))
    pair.client.set_route(RouteKind.TCP, port, Site(upstream=upstream))
    pair.publish()
    return port


def test_memory_structs_of_an_idle_visitor_are_no_larger_than_decided():
    """An idle visitor is a Conn, a Stream and, of HTTP, an Exchange at the server, and as much again at the client.
    Whoever makes one of them larger decides so here; slabs round up to 16 bytes, the heap to 8 more than that."""
    assert STRUCT_BYTES == {"Conn": 256, "Exchange": 288, "Stream": 288, "UpstreamConn": 64}


def test_memory_many_slow_readers_stay_below_the_limit_and_get_every_byte():
    data = pattern(700_000)
    with engine_pair(memory_limit_bytes=LIMIT) as pair, tcp_upstream(lambda conn: conn.sendall(data)) as upstream:
        port = listen_with_small_buffers(pair, upstream.upstream)
        with high_water(pair.server) as server_top, high_water(pair.client) as client_top:
            slow = [connect(port, receive_buffer_bytes=4096) for _ in range(STOPPED)]
            eventually(lambda: pair.client.stats()["streams_open"] == STOPPED)
            with ThreadPoolExecutor(STOPPED) as pool:
                for got in pool.map(read_all, slow):
                    assert got == data
        for sock in slow:
            sock.close()
        assert server_top[0] <= LIMIT + SLACK
        assert client_top[0] <= LIMIT + SLACK
        assert pair.server.stats()["links_open"] == 1
        pair.assert_idle()
        assert exchange_bytes(port, b"") == data


def test_memory_many_slow_upstreams_stay_below_the_limit_and_get_every_byte(tmp_path: Path):
    """Unix sockets: they hold less in the kernel than TCP does."""
    data = pattern(2_000_000)
    count = STOPPED
    path = tmp_path / "upstream.sock"

    go_on = threading.Event()

    def read_one(_: int) -> int:
        with listener.accept()[0] as conn:      # the last ones are opened only once the first have made room
            go_on.wait(30)
            got = read_all(conn)
            conn.sendall(b"ok")
            return len(got)

    with (
        socket.socket(socket.AF_UNIX) as listener, engine_pair(memory_limit_bytes=LIMIT) as pair,
        ThreadPoolExecutor(count) as visitors, ThreadPoolExecutor(count) as readers,
    ):
        listener.bind(str(path))
        listener.listen(count)
        port = pair.serve_tcp("upload", Upstream(unix_path=str(path)))
        with high_water(pair.server) as server_top, high_water(pair.client) as client_top:
            answers = [visitors.submit(exchange_bytes, port, data) for _ in range(count)]
            lengths = readers.map(read_one, range(count))
            eventually(lambda: pair.client.stats()["streams_open"] == count)
            go_on.set()
            assert list(lengths) == [len(data)] * count
            for answer in answers:
                assert answer.result(60) == b"ok"
        assert max(server_top[0], client_top[0]) <= LIMIT + SLACK
        assert pair.client.stats()["links_open"] == 1
        pair.assert_idle()


def endless(conn: socket.socket) -> None:
    if conn.recv(1) == b"e":
        while True:
            conn.sendall(bytes(100_000))
    conn.sendall(b"quick")


def test_memory_visitors_that_never_read_are_reset_before_they_hold_up_the_rest():
    """From the address of one who reads: the crowd's windows are small, and nothing of it stops the link."""
    with engine_pair(memory_limit_bytes=LIMIT) as pair, tcp_upstream(endless) as upstream:
        port = listen_with_small_buffers(pair, upstream.upstream)
        stopped = []
        for _ in range(STOPPED):
            stopped.append(connect(port, receive_buffer_bytes=4096))
            stopped[-1].sendall(b"e")
        eventually(lambda: pair.client.stats()["streams_open"] == STOPPED)
        with connect(port) as sock:
            sock.sendall(b"q")
            assert read_exactly(sock, 5) == b"quick"
        assert pair.server.stats()["links_open"] == 1
        for sock in stopped:
            abort(sock)
        pair.assert_idle()


@pytest.mark.slow
def test_memory_link_left_unread_stays_alive():
    """A tunnel that holds its share, but for moments, for longer than a link may be silent: both sides hear of each
    other. The crowd comes from many addresses, so that none of them is above its own share."""
    with engine_pair(memory_limit_bytes=LIMIT) as pair, tcp_upstream(endless) as upstream:
        port = listen_with_small_buffers(pair, upstream.upstream)
        stopped: list[socket.socket] = []
        serial = itertools.count()

        def stop_reading() -> None:
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.bind((f"127.1.{next(serial) % 200}.1", 0))
            sock.connect(("127.0.0.1", port))
            sock.sendall(b"e")
            stopped.append(sock)

        for _ in range(CROWD):
            stop_reading()
        eventually(lambda: pair.server.stats()["buffer_bytes"] > SHARE)
        full = []
        pause = threading.Event()
        deadline = time.monotonic() + 27        # longer than LINK_DEAD_MS: only time can show it
        while time.monotonic() < deadline:
            full.append(pair.server.stats()["buffer_bytes"] > SHARE)
            for sock in list(stopped):
                if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):     # reset: another takes its place
                    stopped.remove(sock)
                    sock.close()
                    stop_reading()
            pause.wait(0.02)
        # Not at every look: after two seconds streams are reset, and for a moment there is room for what comes next.
        assert sum(full) > 0.9 * len(full), (sum(full), len(full))
        for engine in (pair.client, pair.server):
            assert all(event.kind != EventKind.LINK_DOWN for event in engine.drain_events())
        for sock in stopped:
            abort(sock)
        with connect(port) as sock:
            sock.sendall(b"q")
            assert read_exactly(sock, 5) == b"quick"
        assert pair.server.stats()["links_total"] == 1
        pair.assert_idle()


def page_of(total_bytes: int) -> Callable[[socket.socket], None]:
    def answer(conn: socket.socket) -> None:
        conn.recv(65536)
        conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total_bytes + bytes(total_bytes))

    return answer


def test_memory_client_keeps_nothing_of_answers_beyond_what_their_visitors_may_be_sent():
    """What comes with a head, and finds no room, would take four blocks for each reader of nothing."""
    with engine_pair(memory_limit_bytes=LIMIT) as pair, tcp_upstream(page_of(1 << 20)) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream)
        port = small_listener(pair, ListenerKind.HTTP)
        stopped = [connect(port, receive_buffer_bytes=4096) for _ in range(STOPPED)]
        for sock in stopped:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: a.tun.test\r\n\r\n")
        for sock in stopped:
            assert sock.recv(1, socket.MSG_PEEK)
        eventually(lambda: pair.client.stats()["buffer_bytes"] <= STOPPED * BLOCK_SIZE // 4)
        for sock in stopped:
            abort(sock)
        pair.assert_idle()


# --- the kernel's -----------------------------------------------------------------------------------------------------


@contextmanager
def engine_socket(peer: tuple[str, int], own: tuple[str, int]) -> Iterator[socket.socket]:
    """The engine's own socket, of this process, with these two ends: of many conns several have one of them."""
    found = None
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            if path.is_socket():
                sock = socket.socket(fileno=os.dup(int(path.name)))
                with contextlib.suppress(OSError):
                    if (sock.getpeername(), sock.getsockname()) == (peer, own):
                        found = sock
                        break
                sock.close()
    assert found is not None
    with found:
        yield found


FREE, FEW, CROWD = 8, 32, 256
LARGE = 65_535  # as the kernel likes: half of the peer's window, or all that loopback takes


@contextmanager
def crowd_of(pair: Pair, count: int) -> Iterator[None]:
    """Visitors whose service has not even taken them."""
    with contextlib.ExitStack() as inside:
        silent = inside.enter_context(listening())
        port = pair.serve_tcp("crowd", Upstream(addresses=[silent.getsockname()]))
        for _ in range(count):
            inside.enter_context(connect(port))
        eventually(lambda: pair.client.stats()["upstreams_open"] == count)
        yield


@pytest.mark.parametrize(("crowd", "segment_bytes"), [
    (0, LARGE), (FREE, 31_700), (FEW, 7500), (CROWD - 2, 7500), (CROWD, 1400),
])
def test_memory_kernel_buffers_of_a_crowd_stay_small_until_the_visitor_has_read_something(crowd, segment_bytes):
    begun: queue.SimpleQueue[socket.socket] = queue.SimpleQueue()
    go_on = threading.Event()

    def answer(conn: socket.socket) -> None:
        begun.put(conn)
        go_on.wait(30)
        conn.sendall(bytes(PROVING))

    with engine_pair() as pair, tcp_upstream(answer) as upstream, crowd_of(pair, crowd):
        port = pair.serve_tcp("slow", upstream.upstream)
        with connect(port) as first:        # it may have come before the engine had the listener
            begun.get(timeout=20)
            with connect(port) as visitor:
                service = begun.get(timeout=20)
                # What the kernel takes of a service for a visitor that reads nothing is counted in segments.
                announced = service.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
                least = 31_700 if segment_bytes == LARGE else segment_bytes * 0.9
                assert least < announced <= segment_bytes
                is_sparing = crowd >= CROWD
                with (
                    engine_socket(service.getsockname(), service.getpeername()) as to_service,
                    engine_socket(visitor.getsockname(), visitor.getpeername()) as to_visitor,
                ):
                    assert (to_service.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 32_768) == is_sparing
                    assert to_visitor.getsockopt(socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT) == 32_768
                    go_on.set()
                    assert len(read_all(visitor)) == PROVING
                    eventually(lambda: to_visitor.getsockopt(socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT) == 131_072)
                    eventually(lambda: to_service.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) > 32_768)
                    assert to_service.getsockopt(socket.SOL_SOCKET, SO_BUF_LOCK) & SOCK_RCVBUF_LOCK == 0
            assert len(read_all(first)) == PROVING


# --- what engines leave behind ----------------------------------------------------------------------------------------


def fd_count() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def thread_count() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


def test_engine_started_and_stopped_again_and_again_leaves_no_descriptor_and_no_thread():
    with engine_pair():
        pass
    fds, threads = fd_count(), thread_count()
    for _ in range(15):
        with engine_pair(workers=2) as pair:
            pair.server.stop()
            pair.server.stop()
    # A thread that was joined may still be in the kernel's list for a moment.
    eventually(lambda: fd_count() == fds)
    eventually(lambda: thread_count() == threads)


def test_engine_stopped_under_traffic_leaves_no_descriptor_and_resets_its_visitors():
    def run() -> None:
        with tcp_upstream(echo) as upstream, engine_pair(workers=2) as pair:
            port = pair.serve_tcp("echo", upstream.upstream)
            socks = [connect(port) for _ in range(20)]
            for sock in socks:
                sock.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    sock.send(pattern(4_000_000))
            pair.client.stop()
            pair.server.stop()
            for sock in socks:
                sock.settimeout(5)
                with contextlib.suppress(ConnectionResetError):
                    while sock.recv(1 << 20):
                        pass
                sock.close()

    run()
    fds, threads = fd_count(), thread_count()
    for _ in range(5):
        run()
    eventually(lambda: fd_count() <= fds)
    eventually(lambda: thread_count() <= threads)


def test_engine_that_was_never_started_leaves_no_descriptor():
    fds = fd_count()
    for _ in range(10):
        engine = Engine(workers=2, memory_limit_bytes=LIMIT, accepting=False)
        engine.add_listener(ListenerKind.TCP, listening().detach(), worker=0, port=1)
        engine.stop()
    assert fd_count() == fds


@pytest.mark.skipif(IS_SANITIZED, reason="a sanitizer keeps what is freed")
def test_engine_memory_does_not_grow_with_visitors_served():
    """Two workers, one link: half of the visitors are handed over. Resident memory settles."""
    def resident_bytes() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    closed = listening()
    refused = Upstream(addresses=[closed.getsockname()])
    closed.close()
    with engine_pair(workers=2) as pair:
        port = pair.serve_tcp("refused", refused)

        def visit(count: int) -> None:
            for _ in range(count):
                assert is_refused(port)

        visit(1000)
        before = resident_bytes()
        visit(4000)
        assert pair.server.stats()["handovers_total"] > 1000
        assert resident_bytes() - before < 1 << 20
        pair.assert_idle()


OUT_OF_DESCRIPTORS = textwrap.dedent(
    """
    import os, resource, socket
    from tests.support.engines import engine_pair, eventually

    with engine_pair() as pair:
        used = len(os.listdir("/proc/self/fd"))
        waiting = [socket.socket() for _ in range(40)]
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 40 + 6, 4096))
        for sock in waiting:            # six are accepted and hold their descriptors: a head is awaited from each
            sock.settimeout(30)
            sock.connect(("127.0.0.1", pair.ports["http"]))
        eventually(lambda: pair.server.stats()["accept_paused_total"] > 0)
        passes = pair.server.stats()["passes_total"]
        paused = pair.server.stats()["accept_paused_total"]
        eventually(lambda: pair.server.stats()["accept_paused_total"] > paused + 3)
        assert pair.server.stats()["passes_total"] - passes < 300, "a listener without descriptors must not spin"
        assert pair.server.stats()["links_open"] == 1
        resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
        for sock in waiting:            # nobody was lost: each gets its answer, an unknown host's page
            sock.sendall(b"GET / HTTP/1.1\\r\\nHost: nobody.test\\r\\nConnection: close\\r\\n\\r\\n")
            assert sock.recv(65536).startswith(b"HTTP/1.1 404 ")
            sock.close()
        pair.assert_idle()
    print("ok")
    """
)


def test_engine_out_of_descriptors_pauses_accepting_and_then_serves_all_who_waited():
    # A sanitizer that has no descriptor left for its file says what it has to say on standard error.
    sanitizer = " ".join(option for option in os.environ.get("TSAN_OPTIONS", "").split() if "log_path" not in option)
    done = subprocess.run(
        [sys.executable, "-c", OUT_OF_DESCRIPTORS], cwd=Path(__file__).parents[3], capture_output=True, text=True,
        timeout=60, check=False, env={**os.environ, "TSAN_OPTIONS": sanitizer},
    )
    assert (done.stdout, done.returncode) == ("ok\n", 0), done.stderr
