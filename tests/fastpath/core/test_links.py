"""Links: how they begin, what refuses them, how they end, and how streams choose between several."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from pathlib import Path

import pytest

from spokes._fastpath.engine import Engine, EventKind, LinkDown, ListenerKind, RouteKind, Site
from tests.support.client_hello import real_hello
from tests.support.engines import (
    CHAIN_PEM,
    DOMAIN,
    PIN,
    Pair,
    engine_pair,
    eventually,
    listening,
    make_certificate,
    wait_events,
)
from tests.support.frames import (
    FrameType,
    Service,
    accept_peer,
    client_context,
    connect_peer,
    frame,
    listening_peer,
    open_frame,
    server_context,
)
from tests.support.threads import join_thread
from tests.support.upstreams import abort, connect, echo, exchange_bytes, is_refused, read_all, tcp_upstream

ENDLESS_BYTES = 256 << 20       # more than anyone reads of a conn that is over, and than kernels keep


@contextlib.contextmanager
def client_engine():
    engine = Engine(workers=1, memory_limit_bytes=8 << 20, accepting=False)
    engine.start()
    try:
        yield engine
        eventually(lambda: engine.stats()["conns_open"] == 1)       # its wake-up descriptor
        assert engine.stats()["buffer_bytes"] == 0
        assert engine.stats()["links_open"] == 0
    finally:
        engine.stop()


def down_of(engine: Engine, link: int, within_s: float = 5) -> LinkDown:
    return LinkDown(wait_events(engine, lambda e: e.kind == EventKind.LINK_DOWN and e.link == link, within_s).code)


def dial(engine: Engine, port: int, *, pin: bytes = PIN, ca_file: str = "", name: str = DOMAIN) -> int:
    return engine.connect_link("127.0.0.1", port, server_name=name, pin_sha256=pin, ca_file=ca_file)


# --- dialling ---------------------------------------------------------------------------------------------------------


def test_link_with_a_wrong_pin_is_refused_and_the_server_hears_no_frame():
    with client_engine() as engine, listening_peer() as listener:
        link = dial(engine, listener.getsockname()[1], pin=bytes(32))
        with contextlib.suppress(OSError):
            peer = accept_peer(listener)
            assert peer.until_end() == []
            assert peer.received == b""
        assert down_of(engine, link) is LinkDown.PIN


def test_link_with_a_wrong_pin_is_refused_though_its_authority_is_trusted(tmp_path: Path):
    trusted = tmp_path / "ca.pem"
    trusted.write_bytes(CHAIN_PEM)
    with client_engine() as engine, listening_peer() as listener:
        link = dial(engine, listener.getsockname()[1], pin=bytes(32), ca_file=str(trusted))
        with contextlib.suppress(OSError):
            assert accept_peer(listener).until_end() == []
        assert down_of(engine, link) is LinkDown.PIN


def test_link_to_an_untrusted_certificate_is_refused(tmp_path: Path):
    other = tmp_path / "ca.pem"
    other.write_bytes(make_certificate("other.test")[0])
    with client_engine() as engine, listening_peer() as listener:
        link = dial(engine, listener.getsockname()[1], pin=b"", ca_file=str(other))
        with contextlib.suppress(OSError):
            accept_peer(listener).until_end()
        assert down_of(engine, link) in (LinkDown.PIN, LinkDown.TLS)


def test_link_to_a_trusted_certificate_of_another_name_is_refused(tmp_path: Path):
    trusted = tmp_path / "ca.pem"
    trusted.write_bytes(CHAIN_PEM)
    with client_engine() as engine, listening_peer() as listener:
        link = dial(engine, listener.getsockname()[1], pin=b"", ca_file=str(trusted), name="else.test")
        with contextlib.suppress(OSError):
            accept_peer(listener).until_end()
        assert down_of(engine, link) in (LinkDown.PIN, LinkDown.TLS)


def test_link_to_a_trusted_certificate_stands(tmp_path: Path):
    trusted = tmp_path / "ca.pem"
    trusted.write_bytes(CHAIN_PEM)
    with client_engine() as engine, listening_peer() as listener:
        link = dial(engine, listener.getsockname()[1], pin=b"", ca_file=str(trusted))
        peer = accept_peer(listener)
        event = wait_events(engine, lambda e: e.kind == EventKind.LINK_UP)
        assert event.link == link
        assert event.data.decode() == f"127.0.0.1 {listener.getsockname()[1]}"
        peer.read(FrameType.WINDOW)     # a close with unread bytes would be a reset
        peer.close()
        assert down_of(engine, link) is LinkDown.CLOSED


def test_link_to_a_server_without_the_protocol_is_refused():
    with client_engine() as engine, listening_peer() as listener:
        link = dial(engine, listener.getsockname()[1])
        with contextlib.suppress(OSError):
            accept_peer(listener, server_context(alpn="")).until_end()
        assert down_of(engine, link) in (LinkDown.PROTOCOL, LinkDown.TLS)


def test_link_to_a_server_with_an_older_tls_is_refused():
    with client_engine() as engine, listening_peer() as listener:
        link = dial(engine, listener.getsockname()[1])
        context = server_context()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with contextlib.suppress(OSError):
            accept_peer(listener, context)
        assert down_of(engine, link) is LinkDown.TLS


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0" * 100, b"\x16\x03\x03\xff\xff" + b"x" * 70000]
)
def test_link_to_a_server_that_speaks_no_tls_is_refused(answer):
    with client_engine() as engine, listening_peer() as listener:
        link = dial(engine, listener.getsockname()[1])
        conn, _ = listener.accept()
        with contextlib.suppress(OSError):
            conn.sendall(answer)
        assert down_of(engine, link) is LinkDown.TLS
        conn.close()


def test_link_to_a_server_that_hangs_up_at_once_is_refused():
    with client_engine() as engine, listening_peer() as listener:
        for end in (socket.socket.close, abort):
            link = dial(engine, listener.getsockname()[1])
            conn, _ = listener.accept()
            end(conn)
            assert down_of(engine, link) in (LinkDown.CLOSED, LinkDown.SYSTEM, LinkDown.TLS)


def test_link_to_a_closed_port_is_refused_with_the_systems_words():
    closed = listening()
    port = closed.getsockname()[1]
    closed.close()
    with client_engine() as engine:
        link = dial(engine, port)
        event = wait_events(engine, lambda e: e.kind == EventKind.LINK_DOWN)
        assert (event.link, event.code, event.data) == (link, LinkDown.SYSTEM, b"Connection refused")


@pytest.mark.parametrize("command", ["close_link", "abort_link"])
def test_link_that_is_closed_while_it_is_dialled_is_gone(command):
    with client_engine() as engine, listening_peer() as listener:
        link = dial(engine, listener.getsockname()[1])
        conn, _ = listener.accept()
        assert conn.recv(1)
        engine.send_control(link, b"too early")
        engine.bind_link(link, engine.open_tunnel())
        engine.drain_link(link)
        getattr(engine, command)(link)
        assert down_of(engine, link) is LinkDown.LOCAL
        getattr(engine, command)(link)
        engine.send_control(link, b"too late")
        conn.close()


@pytest.mark.parametrize("service", Service)
def test_link_that_is_not_bound_serves_no_stream(service: Service):
    with client_engine() as engine, tcp_upstream(echo) as upstream, listening_peer() as listener:
        engine.set_route(RouteKind.HTTP, "", Site(upstream=upstream.upstream))
        engine.set_route(RouteKind.TCP, 22, Site(upstream=upstream.upstream))
        engine.set_route(RouteKind.UDP, 22, Site(upstream=upstream.upstream))
        engine.set_route(RouteKind.TLS, "a.test", Site(upstream=upstream.upstream))
        engine.publish()
        link = dial(engine, listener.getsockname()[1])
        peer = accept_peer(listener)
        wait_events(engine, lambda e: e.kind == EventKind.LINK_UP)
        peer.send(open_frame(2, service, 22, name=b"a.test"))
        reset = peer.read(FrameType.RESET)
        assert (reset.stream, int.from_bytes(reset.payload, "big")) == (2, 2)       # no_service
        engine.bind_link(link, engine.open_tunnel())
        peer.ping()
        peer.send(open_frame(4, service, 22, name=b"a.test"), frame(FrameType.FIN, 4))
        peer.ping()
        eventually(lambda: engine.stats()["streams_total"] == 2)
        if service in (Service.TCP, Service.TLS):
            eventually(lambda: len(upstream.conns) == 1)
        peer.close()
        assert down_of(engine, link) in (LinkDown.CLOSED, LinkDown.SYSTEM)


def test_link_commands_for_links_that_never_were_do_nothing():
    with client_engine() as engine:
        tunnel = engine.open_tunnel()
        for link in (0, 1, (1 << 56) | 77, (9 << 56) | 1, 2**64 - 1):
            engine.send_control(link, b"x")
            engine.bind_link(link, tunnel)
            engine.drain_link(link)
            engine.close_link(link)
            engine.abort_link(link)
            assert engine.link_rtt_ms(link) == 0.0
        engine.publish()


@pytest.mark.slow
def test_link_to_a_server_that_never_answers_ends_at_the_deadline():
    with client_engine() as engine, listening_peer() as listener:
        begun = time.monotonic()
        link = dial(engine, listener.getsockname()[1])
        assert down_of(engine, link, within_s=15) is LinkDown.HANDSHAKE
        assert 9 < time.monotonic() - begun < 12


# --- the TLS port -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        b"\0", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff", b"\x16\x03\x01\0\0", b"\x15\x03\x01\0\2\2\0",
        bytes(range(256)) * 200,
    ],
    ids=["zero", "http", "huge record", "empty record", "alert", "noise"],
)
def test_tls_port_garbage_is_told_so_and_a_link_goes_on(text):
    with engine_pair() as pair, tcp_upstream(echo) as upstream:
        port = pair.serve_tcp("echo", upstream.upstream)
        with connect(pair.ports["tls"]) as sock, contextlib.suppress(ConnectionResetError, BrokenPipeError):
            sock.sendall(text)
            assert sock.recv(100).startswith(b"HTTP/1.1 400 " if text[:1] == b"G" else b"\x15\x03\x01\0\2\2\x32")
        assert exchange_bytes(port, b"fine") == b"fine"
        pair.assert_idle()


def test_tls_port_conn_that_says_nothing_and_goes_leaves_nothing():
    with engine_pair() as pair:
        for _ in range(50):
            connect(pair.ports["tls"]).close()
            abort(connect(pair.ports["tls"]))
        pair.assert_idle()


def test_tls_port_hello_in_crumbs_makes_a_link():
    """Byte by byte, the whole handshake of the client."""
    with engine_pair() as pair, connect(pair.ports["tls"]) as sock:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = client_context().wrap_bio(incoming, outgoing, server_hostname=DOMAIN)
        done = False
        while not done:
            try:
                tls.do_handshake()
                done = True
            except ssl.SSLWantReadError:
                pass
            for byte in outgoing.read():
                sock.sendall(bytes([byte]))
            if not done:
                incoming.write(sock.recv(65536))
        assert tls.selected_alpn_protocol() == "spokes/1"
        link = wait_events(pair.server, lambda e: e.kind == EventKind.LINK_UP).link
        sock.close()
        assert down_of(pair.server, link) in (LinkDown.CLOSED, LinkDown.SYSTEM)
        pair.assert_idle()


@pytest.mark.slow
def test_tls_port_hello_that_never_ends_is_closed_after_five_seconds():
    with engine_pair() as pair, connect(pair.ports["tls"]) as sock:
        begun = time.monotonic()
        sock.sendall(real_hello(DOMAIN)[:-1])
        assert read_all(sock) == b"\x15\x03\x01\x00\x02\x02\x32"  # decode_error
        assert 4 < time.monotonic() - begun < 7
        pair.assert_idle()


def test_link_arriving_with_an_older_tls_is_refused():
    context = client_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with engine_pair() as pair, connect(pair.ports["tls"]) as sock:
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            context.wrap_socket(sock, server_hostname=DOMAIN)
        pair.assert_idle()


# --- life and end -----------------------------------------------------------------------------------------------------


def test_link_closed_in_order_delivers_what_was_queued_though_the_peer_was_writing():
    """A bye must arrive: the peer has bytes on their way that nobody will read any more."""
    for _ in range(10):
        with engine_pair() as pair:
            peer = connect_peer(pair.ports["tls"])
            link = wait_events(pair.server, lambda e: e.kind == EventKind.LINK_UP).link
            chatter = frame(99, 0, bytes(60000))        # one thread: an SSLSocket bears no two at once
            peer.try_send(*[chatter] * 10)
            pair.server.send_control(link, b'{"type":"bye"}')
            pair.server.close_link(link)
            peer.try_send(*[chatter] * 10)
            frames = peer.until_end()
            assert [one.payload for one in frames if one.type == FrameType.CONTROL] == [b'{"type":"bye"}']
            assert down_of(pair.server, link) is LinkDown.LOCAL
            peer.close()
            pair.assert_idle()
            eventually(lambda pair=pair: pair.server.stats()["conns_open"] == 4)


def taken_after_the_end(sock: socket.socket) -> int:
    """Sends for as long as the other side takes it: how many bytes that was."""
    taken, text = 0, bytes(1 << 20)
    with contextlib.suppress(OSError):
        while taken < ENDLESS_BYTES:
            taken += sock.send(text)
    return taken


def test_link_closed_by_the_control_plane_is_not_read_without_an_end():
    with engine_pair() as pair:
        peer = connect_peer(pair.ports["tls"])
        link = wait_events(pair.server, lambda e: e.kind == EventKind.LINK_UP).link
        pair.server.send_control(link, b'{"type":"bye"}')
        pair.server.close_link(link)
        raw = socket.socket(fileno=peer.sock.detach())
        raw.settimeout(10)
        with raw:
            assert taken_after_the_end(raw) < ENDLESS_BYTES
        assert down_of(pair.server, link) is LinkDown.LOCAL
        pair.assert_idle()


def test_visitor_refused_by_its_server_name_is_not_read_without_an_end():
    with engine_pair() as pair, connect(pair.ports["tls"]) as sock:
        sock.settimeout(10)
        sock.sendall(real_hello("nobody.test"))
        assert taken_after_the_end(sock) < ENDLESS_BYTES
        pair.assert_idle()


def test_link_of_two_engines_closed_in_order_delivers_its_last_message():
    with engine_pair() as pair:
        pair.server.send_control(pair.server_link, b"bye")
        pair.server.close_link(pair.server_link)
        seen = []
        eventually(lambda: seen.extend(pair.client.drain_events()) or len(seen) >= 2)
        assert [(e.kind, e.data) for e in seen[:1]] == [(EventKind.CONTROL, b"bye")]
        assert (seen[1].kind, seen[1].code) == (EventKind.LINK_DOWN, LinkDown.CLOSED)


def test_link_reset_by_a_peer_that_said_why_is_read_to_its_end():
    with client_engine() as engine, listening_peer() as listener:
        for _ in range(20):
            link = dial(engine, listener.getsockname()[1])
            peer = accept_peer(listener)
            wait_events(engine, lambda e: e.kind == EventKind.LINK_UP)
            engine.send_control(link, bytes(60000))     # stays unread, so that close() resets
            peer.send(frame(FrameType.CONTROL, 0, b"last words"))
            peer.close()
            seen = []
            eventually(
                lambda seen=seen: seen.extend(engine.drain_events())
                or any(e.kind == EventKind.LINK_DOWN for e in seen)
            )
            assert [e.data for e in seen if e.kind == EventKind.CONTROL] == [b"last words"]


@pytest.mark.slow
def test_link_whose_peer_is_silent_hears_ping_and_then_ends_as_dead():
    with engine_pair() as pair:
        peer = connect_peer(pair.ports["tls"])
        peer.sock.settimeout(30)
        link = wait_events(pair.server, lambda e: e.kind == EventKind.LINK_UP).link
        begun = time.monotonic()
        while (one := peer.next_frame()) is not None and one.type == FrameType.WINDOW:
            pass                        # says at once what it understands
        assert one is not None
        assert one.type == FrameType.PING
        assert 14 < time.monotonic() - begun < 17
        peer.until_end()
        assert 24 < time.monotonic() - begun < 28
        assert down_of(pair.server, link) is LinkDown.DEAD
        assert pair.server.stats()["links_open"] == 1       # the other one answered
        assert pair.client.drain_events() == []


def test_link_measures_its_round_trip():
    with engine_pair() as pair, tcp_upstream(echo) as upstream:
        assert exchange_bytes(pair.serve_tcp("echo", upstream.upstream), b"x") == b"x"
        eventually(lambda: 0 < pair.server.link_rtt_ms(pair.server_link) < 1000)


# --- several links ----------------------------------------------------------------------------------------------------


def join(pair: Pair) -> tuple[int, int]:
    client = dial(pair.client, pair.ports["tls"])
    wait_events(pair.client, lambda e: e.kind == EventKind.LINK_UP)
    server = wait_events(pair.server, lambda e: e.kind == EventKind.LINK_UP).link
    pair.server.bind_link(server, pair.server_tunnel)
    pair.client.bind_link(client, pair.client_tunnel)
    return client, server


def test_links_of_one_tunnel_carry_on_when_one_goes():
    with engine_pair() as pair, tcp_upstream(echo) as upstream:
        port = pair.serve_tcp("echo", upstream.upstream)
        links = [join(pair) for _ in range(5)]
        socks = [connect(port) for _ in range(30)]
        for sock in socks:
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
        for _, server in links:
            pair.server.abort_link(server)
        eventually(lambda: pair.server.stats()["links_open"] == 1)
        alive = 0
        for sock in socks:
            with contextlib.suppress(ConnectionResetError):
                sock.sendall(b"y")
                alive += sock.recv(1) == b"y"
            sock.close()
        assert 0 < alive < 30
        assert exchange_bytes(port, b"new ones go on") == b"new ones go on"
        pair.server.abort_link(pair.server_link)
        eventually(lambda: pair.server.stats()["links_open"] == 0)
        assert is_refused(port)
        pair.assert_idle()


def endless(conn: socket.socket) -> None:
    if conn.recv(1) == b"e":
        while True:
            conn.sendall(bytes(100_000))
    conn.sendall(b"quick")


def test_link_under_bulk_asks_for_another_and_new_streams_take_it():
    with engine_pair() as pair, tcp_upstream(endless) as upstream:
        port = pair.serve_tcp("bulk", upstream.upstream)
        bulk = connect(port)
        bulk.sendall(b"e")
        stop = threading.Event()

        def drink() -> None:
            while not stop.is_set():
                bulk.recv(1 << 20)

        reader = threading.Thread(target=drink, daemon=True)
        reader.start()
        try:
            event = wait_events(pair.client, lambda e: e.kind == EventKind.LINK_WANTED)
            assert event.link == pair.client_link
            _, second = join(pair)
            with connect(port) as sock:
                sock.sendall(b"q")
                assert read_all(sock) == b"quick"
            eventually(lambda: pair.server.stats()["streams_open"] == 1)
            quick = connect(port)       # goes over the idle link: without that one, only the bulk goes on
            eventually(lambda: pair.server.stats()["streams_open"] == 2)
            pair.server.abort_link(second)
            quick.settimeout(5)
            with pytest.raises(ConnectionResetError):
                quick.recv(1)
            quick.close()
            eventually(lambda: pair.server.stats()["streams_open"] == 1)
        finally:
            stop.set()
            join_thread(reader)
            abort(bulk)
        pair.assert_idle()


def test_stopped_listener_accepts_nothing_and_its_conns_go_on():
    with engine_pair() as pair, tcp_upstream(echo) as upstream:
        port = pair.serve_tcp("echo", upstream.upstream)
        sock = listening()
        second = sock.getsockname()[1]
        listener = pair.server.add_listener(ListenerKind.TCP, sock.detach(), worker=0, port=port)
        with connect(second) as visitor:
            visitor.sendall(b"a")
            assert visitor.recv(1) == b"a"
            pair.server.remove_listener(listener)
            pair.server.remove_listener(listener)

            def refused() -> bool:
                try:
                    connect(second).close()
                except ConnectionRefusedError:
                    return True
                except ConnectionResetError:  # it stood in the listener's queue
                    return False
                return False

            eventually(refused)
            visitor.sendall(b"b")
            assert visitor.recv(1) == b"b"
        pair.assert_idle()

