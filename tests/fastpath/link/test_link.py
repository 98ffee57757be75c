"""Frames on a real link, from a peer that breaks the rules: its link ends, with a reason, and no other."""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from spokes._fastpath.hooks.link_hooks import set_last_id

from spokes._fastpath.engine import Engine, Event, EventKind, LinkDown, ListenerKind, RouteKind, Site
from spokes.wire.messages import Bye, decode_message
from tests.support.engines import PIN, Pair, engine_pair, eventually, publish, wait_events
from tests.support.frames import (
    WINDOW_BYTES,
    FramePeer,
    FrameType,
    Service,
    accept_peer,
    connect_peer,
    credit,
    frame,
    listening_peer,
    open_frame,
    open_payload,
)
from tests.support.threads import join_thread
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

REASON_GONE, REASON_NO_SERVICE, REASON_REFUSED, REASON_LIMIT = 1, 2, 3, 6


@dataclass
class Bench:
    """A pair that works, and one more link whose other side is the test."""

    pair: Pair
    peer: FramePeer
    engine: Engine
    link: int
    tunnel: int
    port: int = 0

    def down(self, within_s: float = 5) -> LinkDown:
        event = wait_events(
            self.engine, lambda event: event.kind == EventKind.LINK_DOWN and event.link == self.link, within_s
        )
        return LinkDown(event.code)

    def assert_others_go_on(self, upstream_port: int) -> None:
        assert exchange_bytes(upstream_port, b"others go on") == b"others go on"


@contextmanager
def hostile_client(**limits: int) -> Iterator[Bench]:
    """The server engine has the test as a client, bound to a tunnel of its own with one TCP port."""
    with engine_pair(**limits) as pair, tcp_upstream(echo) as upstream:
        honest = pair.serve_tcp("honest", upstream.upstream)
        tunnel = pair.server.open_tunnel()
        port = pair.listen("hostile", ListenerKind.TCP)
        pair.server.set_route(RouteKind.TCP, port, Site(tunnels=(tunnel,)))
        publish(pair.server)
        peer = connect_peer(pair.ports["tls"])
        link = wait_events(pair.server, lambda event: event.kind == EventKind.LINK_UP).link
        pair.server.bind_link(link, tunnel)
        peer.ping()
        yield Bench(pair, peer, pair.server, link, tunnel, port)
        assert exchange_bytes(honest, b"others go on") == b"others go on"
        assert pair.server.stats()["links_open"] >= 1
        peer.close()
        pair.assert_idle()
        eventually(lambda: pair.server.stats()["links_open"] == 1)


@contextmanager
def hostile_client_beside(bench: Bench) -> Iterator[Bench]:
    """A second client of the same server, bound to a tunnel of its own."""
    pair = bench.pair
    tunnel = pair.server.open_tunnel()
    port = pair.listen("beside", ListenerKind.TCP)
    pair.server.set_route(RouteKind.TCP, port, Site(tunnels=(tunnel,)))
    publish(pair.server)
    peer = connect_peer(pair.ports["tls"])
    link = wait_events(pair.server, lambda event: event.kind == EventKind.LINK_UP).link
    pair.server.bind_link(link, tunnel)
    peer.ping()
    yield Bench(pair, peer, pair.server, link, tunnel, port)
    peer.close()


def conns_without(bench: Bench) -> int:
    """The server's conns that are no visitor and no test's link: listeners, its wake-up and the pair's own link."""
    return len(bench.pair.ports) + 2


@contextmanager
def hostile_server() -> Iterator[Bench]:
    """The client engine has dialled the test; port 22 is served by an echo."""
    with engine_pair() as pair, tcp_upstream(echo) as upstream, listening_peer() as listener:
        honest = pair.serve_tcp("honest", upstream.upstream)
        tunnel = pair.client.open_tunnel()
        pair.client.set_route(RouteKind.TCP, 22, Site(upstream=upstream.upstream))
        publish(pair.client)
        link = pair.client.connect_link(
            "127.0.0.1", listener.getsockname()[1], server_name="tun.test", pin_sha256=PIN
        )
        peer = accept_peer(listener)
        wait_events(pair.client, lambda event: event.kind == EventKind.LINK_UP)
        pair.client.bind_link(link, tunnel)
        peer.ping()
        yield Bench(pair, peer, pair.client, link, tunnel)
        assert exchange_bytes(honest, b"others go on") == b"others go on"
        peer.close()
        pair.assert_idle()
        eventually(lambda: pair.client.stats()["links_open"] == 1)


def assert_broken(bench: Bench, code: str = "SPK-PROTOCOL", reason: int = 7) -> None:
    """Both sides are told why: Python by the event, the peer by a goodbye as the last thing it hears."""
    assert bench.down() is LinkDown.PROTOCOL
    last = bench.peer.until_end()[-1]
    bye = decode_message(last.payload)
    assert (last.type, last.flags, last.stream) == (FrameType.CONTROL, 0, 0)
    assert isinstance(bye, Bye)
    assert (bye.code, bye.reason, bye.retry) == (code, reason, True)
    assert bench.peer.ended == "eof"


# --- honest frames, cut anywhere --------------------------------------------------------------------------------------


def test_mux_stream_from_a_visitor_reaches_the_peer_and_back():
    with hostile_client() as bench, connect(bench.port) as visitor:
        visitor.sendall(b"hello")
        opened = bench.peer.read(FrameType.OPEN)
        assert opened.stream == 2
        assert opened.payload[0] == Service.TCP
        assert int.from_bytes(opened.payload[2:4], "big") == bench.port
        assert opened.payload[5] == 4
        assert opened.payload[8:12] == bytes((127, 0, 0, 1))
        assert int.from_bytes(opened.payload[6:8], "big") == visitor.getsockname()[1]
        assert bench.peer.read(FrameType.DATA).payload == b"hello"
        bench.peer.send(frame(FrameType.DATA, 2, b"answer"), frame(FrameType.FIN, 2))
        assert read_all(visitor) == b"answer"
        visitor.shutdown(socket.SHUT_WR)
        assert bench.peer.read(FrameType.FIN).stream == 2


CONVERSATION = b"".join([
    frame(FrameType.PING, 0, b"12345678"),
    frame(200, 77, b"a type of the future"),
    frame(FrameType.DATA, 2, b"payload"),
    credit(2, WINDOW_BYTES + 5),
    frame(FrameType.CONTROL, 0, b'{"type":"later"}', flags=1),
    frame(FrameType.DATAGRAM, 2, b"not for tcp"),
    frame(FrameType.FIN, 2),
    frame(FrameType.RESET, 2, b"\0\1"),
])


@pytest.mark.parametrize("first", range(1, len(CONVERSATION), 40))
def test_mux_every_frame_cut_at_every_byte_reads_the_same(first):
    """One TLS record for each part: the engine sees the cut. Forty cuts a link, for PINGs are counted by the second."""
    with hostile_client() as bench:
        for number, cut in enumerate(range(first, min(first + 40, len(CONVERSATION)))):
            stream = 2 + 2 * number
            text = CONVERSATION.replace(bytes((0, 0, 0, 2)), stream.to_bytes(4, "big"))
            with connect(bench.port) as visitor:
                assert bench.peer.read(FrameType.OPEN).stream == stream
                bench.peer.send(text[:cut])
                bench.peer.send(text[cut:])
                assert bench.peer.read(FrameType.PONG).payload == b"12345678"
                event = wait_events(bench.engine, lambda event: event.kind == EventKind.CONTROL)
                assert (event.code, event.data) == (1, b'{"type":"later"}')
                with contextlib.suppress(ConnectionResetError):     # RESET throws away what was queued
                    assert read_exactly(visitor, 7) == b"payload"


def test_mux_frames_byte_by_byte_read_the_same():
    with hostile_client() as bench, connect(bench.port) as visitor:
        bench.peer.read(FrameType.OPEN)
        for byte in frame(FrameType.DATA, 2, b"slow") + frame(99, 5, b"xyz") + frame(FrameType.DATA, 2, b"ly"):
            bench.peer.send(bytes([byte]))
        assert read_exactly(visitor, 6) == b"slowly"


@pytest.mark.parametrize("kind", FrameType)
def test_mux_link_that_ends_within_a_frame_ends_in_order(kind):
    payloads = {FrameType.OPEN: open_payload(), FrameType.RESET: b"\0\1", FrameType.WINDOW: b"1234"}
    payload = payloads.get(kind, b"12345678")
    stream = 0 if kind in (FrameType.PING, FrameType.PONG, FrameType.CONTROL, FrameType.DRAIN) else 2
    if kind == FrameType.OPEN:
        stream = 3
    text = frame(kind, stream, b"" if kind in (FrameType.FIN, FrameType.DRAIN) else payload)
    with hostile_client() as bench, connect(bench.port) as visitor:
        bench.peer.read(FrameType.OPEN)
        bench.peer.send(text[:-1])
        bench.peer.close()
        assert bench.down() in (LinkDown.CLOSED, LinkDown.SYSTEM)
        is_reset(visitor)


def test_mux_largest_data_frames_pass_whole():
    data = pattern(65535 * 3)
    with hostile_client() as bench, connect(bench.port) as visitor:
        bench.peer.read(FrameType.OPEN)
        for at in range(0, len(data), 65535):
            bench.peer.send(frame(FrameType.DATA, 2, data[at : at + 65535]))
        assert read_exactly(visitor, len(data)) == data


def test_mux_control_messages_of_any_size_arrive_whole_and_in_order():
    sizes = [0, 1, 16375, 16376, 16377, 65534, 65535, 0, 65535]
    with hostile_client() as bench:
        for number, size in enumerate(sizes):
            bench.peer.send(frame(FrameType.CONTROL, 0, pattern(size, seed=number), flags=number & 1))
        seen: list[Event] = []
        eventually(lambda: seen.extend(bench.engine.drain_events()) or len(seen) == len(sizes))
        assert [(event.code, event.data) for event in seen] == [
            (number & 1, pattern(size, seed=number)) for number, size in enumerate(sizes)
        ]


def test_mux_control_messages_to_the_peer_arrive_whole_and_in_order():
    with hostile_client() as bench:
        sent = [(number & 1, pattern(size, seed=number)) for number, size in enumerate([0, 1, 16376, 65535, 3])]
        for flags, payload in sent:
            bench.engine.send_control(bench.link, payload, flags)
        for flags, payload in sent:
            one = bench.peer.read(FrameType.CONTROL)
            assert (one.flags, one.payload) == (flags, payload)


def test_mux_drain_from_the_peer_stops_new_streams_and_keeps_old_ones():
    with hostile_client() as bench, connect(bench.port) as visitor:
        bench.peer.read(FrameType.OPEN)
        bench.peer.send(*[frame(FrameType.DRAIN)] * 1000)
        wait_events(bench.engine, lambda event: event.kind == EventKind.DRAIN)
        bench.peer.ping()
        events = bench.engine.drain_events(2000)
        assert [event for event in events if event.kind == EventKind.DRAIN] == []
        assert is_refused(bench.port)
        visitor.sendall(b"old streams go on")
        assert bench.peer.read(FrameType.DATA).payload == b"old streams go on"


def test_mux_drain_link_tells_the_peer_once_and_opens_nothing_more():
    with hostile_client() as bench:
        bench.engine.drain_link(bench.link)
        bench.engine.drain_link(bench.link)
        bench.peer.read(FrameType.DRAIN)
        assert is_refused(bench.port)
        bench.peer.send(frame(FrameType.PING, 0, b"12345678"))
        assert bench.peer.read(FrameType.PONG, FrameType.DRAIN).type == FrameType.PONG


# --- credit -----------------------------------------------------------------------------------------------------------


def test_mux_credit_bounds_what_the_peer_is_sent():
    data = pattern(2_000_000)
    with hostile_client() as bench, connect(bench.port) as visitor:
        sender = threading.Thread(target=visitor.sendall, args=(data,), daemon=True)
        sender.start()
        bench.peer.read(FrameType.OPEN)
        got = b""
        limits = [WINDOW_BYTES, WINDOW_BYTES + 1, WINDOW_BYTES + 100_000, len(data), len(data)]
        for limit, following in itertools.pairwise(limits):
            while len(got) < limit:
                got += bench.peer.read(FrameType.DATA).payload
            assert len(got) == limit
            bench.peer.ping()           # whatever else the engine had to send would have come before the answer
            bench.peer.send(credit(2, following))
        join_thread(sender)
        assert got == data


def test_mux_credit_comes_as_the_visitor_reads():
    """A peer that sends only what it may: the offsets it is given are right, and rise."""
    data = pattern(3_000_000)
    with hostile_client() as bench, connect(bench.port) as visitor:
        bench.peer.read(FrameType.OPEN)
        got: list[bytes] = []
        reader = threading.Thread(target=lambda: got.append(read_exactly(visitor, len(data))), daemon=True)
        reader.start()
        sent, limit = 0, WINDOW_BYTES
        while sent < len(data):
            while sent < min(limit, len(data)):
                step = min(50_000, limit - sent, len(data) - sent)
                bench.peer.send(frame(FrameType.DATA, 2, data[sent : sent + step]))
                sent += step
            if sent < len(data):
                raised = int.from_bytes(bench.peer.read(FrameType.CREDIT).payload, "big")
                assert limit < raised <= sent + 8 * 1024 * 1024
                limit = raised
        join_thread(reader)
        assert got == [data]


def test_mux_credit_is_one_window_beyond_what_was_taken():
    """Without a round trip that was measured the window stays as it is, so that its size is known."""
    with hostile_client() as bench, connect(bench.port) as visitor:
        while bench.peer.next_frame().type != FrameType.OPEN:
            pass                        # its PING is not answered
        sent = 0
        for _ in range(20):
            step = WINDOW_BYTES // 2 + 1
            bench.peer.send(*(frame(FrameType.DATA, 2, bytes(part)) for part in (65535, 65535, step - 131070)))
            sent += step
            assert len(read_exactly(visitor, step)) == step
            one = bench.peer.next_frame()
            while one.type != FrameType.CREDIT:
                one = bench.peer.next_frame()
            raised = int.from_bytes(one.payload, "big")
            assert sent - step // 2 + WINDOW_BYTES - step < raised <= sent + WINDOW_BYTES


def test_mux_window_that_grew_is_given_back_with_its_stream():
    with hostile_client() as bench, connect(bench.port) as visitor:
        while (one := bench.peer.next_frame()).type != FrameType.PING:
            pass
        eventually(lambda: bench.engine.stats()["streams_open"] == 1)
        time.sleep(0.3)                 # the path's length: windows grow with it
        bench.peer.send(frame(FrameType.PONG, 0, one.payload))
        bench.peer.ping()
        for _ in range(40):
            bench.peer.send(frame(FrameType.DATA, 2, bytes(60_000)))
            read_exactly(visitor, 60_000)
            if bench.engine.stats()["window_promised_bytes"] > 0:
                break
            bench.peer.ping()
        assert bench.engine.stats()["window_promised_bytes"] > 0
        visitor.close()
        bench.peer.read(FrameType.FIN)
        bench.peer.send(frame(FrameType.FIN, 2))
        eventually(lambda: bench.engine.stats()["window_promised_bytes"] == 0)


def test_mux_peer_that_sends_beyond_its_credit_loses_its_link():
    with hostile_client() as bench, connect(bench.port, receive_buffer_bytes=4096) as visitor:
        bench.peer.read(FrameType.OPEN)
        for _ in range(2000):
            if not bench.peer.try_send(frame(FrameType.DATA, 2, bytes(60000))):
                break
        assert bench.down() is LinkDown.PROTOCOL
        assert is_reset(visitor)


def test_mux_peer_that_sends_one_byte_beyond_its_credit_loses_its_link():
    with hostile_server() as bench:
        # The echo's answers are never granted credit: it stops reading, and the engine stops raising the limit.
        bench.peer.send(open_frame(2))
        limit, sent = WINDOW_BYTES, 0
        while True:
            while sent < limit:
                step = min(65535, limit - sent)
                bench.peer.send(frame(FrameType.DATA, 2, bytes(step)))
                sent += step
            bench.peer.sock.settimeout(0.5)
            try:
                limit = int.from_bytes(bench.peer.read(FrameType.CREDIT).payload, "big")
            except AssertionError:
                break
            finally:
                bench.peer.sock.settimeout(10)
        bench.peer.send(frame(FrameType.DATA, 2, b"!"))
        assert_broken(bench)


@pytest.mark.parametrize("limit", [0, WINDOW_BYTES - 1])
def test_mux_credit_that_goes_down_ends_the_link(limit):
    with hostile_client() as bench, connect(bench.port):
        bench.peer.read(FrameType.OPEN)
        bench.peer.send(credit(2, limit))
        assert_broken(bench)


@pytest.mark.parametrize("limit", [2**64 - 1, 2**63, WINDOW_BYTES + 2**40 + 1])
def test_mux_credit_out_of_all_proportion_ends_the_link(limit):
    with hostile_client() as bench, connect(bench.port):
        bench.peer.read(FrameType.OPEN)
        bench.peer.send(credit(2, limit))
        assert_broken(bench)


# --- what no peer may send --------------------------------------------------------------------------------------------

BROKEN_BY_A_CLIENT = {
    "data of length 0": frame(FrameType.DATA, 2),
    "data on stream 0": frame(FrameType.DATA, 0, b"x"),
    "data on a stream never opened": frame(FrameType.DATA, 4, b"x"),
    "data on a stream of its own never opened": frame(FrameType.DATA, 1, b"x"),
    "fin with a payload": frame(FrameType.FIN, 2, b"x"),
    "fin on a stream never opened": frame(FrameType.FIN, 4),
    "fin twice": frame(FrameType.FIN, 2) * 2,
    "data after fin": frame(FrameType.FIN, 2) + frame(FrameType.DATA, 2, b"x"),
    "reset of length 1": frame(FrameType.RESET, 2, b"x"),
    "reset of a stream never opened": frame(FrameType.RESET, 2**32 - 2, b"\0\1"),
    "credit of length 4": frame(FrameType.CREDIT, 2, b"1234"),
    "credit on a stream never opened": credit(4, 1 << 20),
    "ping on a stream": frame(FrameType.PING, 2, b"12345678"),
    "ping of length 7": frame(FrameType.PING, 0, b"1234567"),
    "pong of length 9": frame(FrameType.PONG, 0, b"123456789"),
    "control on a stream": frame(FrameType.CONTROL, 2, b"{}"),
    "drain with a payload": frame(FrameType.DRAIN, 0, b"x"),
    "datagram on a stream never opened": frame(FrameType.DATAGRAM, 4, b"x"),
    "datagram larger than UDP's": frame(FrameType.DATAGRAM, 2, bytes(65508)),
    "open with the server's parity": open_frame(4),
    "open of stream 0": open_frame(0),
    "open twice": open_frame(1) + open_frame(1),
    "open in descending order": open_frame(5) + open_frame(3),
    "open too short": frame(FrameType.OPEN, 1, open_payload()[:24]),
    "open too long": frame(FrameType.OPEN, 1, open_payload() + bytes(300)),
    "open whose name is shorter than it says": frame(FrameType.OPEN, 1, open_payload(name=b"abc")[:-1]),
    "open of an unknown service": frame(FrameType.OPEN, 1, open_payload(9)),
    "open of zeros": frame(FrameType.OPEN, 1, bytes(25)),
    "open of ones": frame(FrameType.OPEN, 1, b"\xff" * 280),
}


@pytest.mark.parametrize("text", BROKEN_BY_A_CLIENT.values(), ids=BROKEN_BY_A_CLIENT.keys())
def test_mux_broken_frame_ends_its_link_and_no_other(text):
    with hostile_client() as bench, connect(bench.port) as visitor:
        bench.peer.read(FrameType.OPEN)
        bench.peer.try_send(text)
        assert_broken(bench)
        assert is_reset(visitor)


BROKEN_BY_A_SERVER = {
    "open with the client's parity": open_frame(1),
    "data on a stream never opened": frame(FrameType.DATA, 2, b"x"),
    "data on a stream the client never opened": frame(FrameType.DATA, 1, b"x"),
    "open twice": open_frame(2) + open_frame(2),
}


@pytest.mark.parametrize("text", BROKEN_BY_A_SERVER.values(), ids=BROKEN_BY_A_SERVER.keys())
def test_mux_broken_frame_from_a_server_ends_its_link_and_no_other(text):
    with hostile_server() as bench:
        bench.peer.send(text)
        assert_broken(bench)


def test_mux_peer_that_pings_too_often_is_told_of_the_limit():
    with hostile_client() as bench:
        bench.peer.send(frame(FrameType.PING, 0, b"12345678") * 101)
        assert_broken(bench, code="SPK-LIMIT", reason=6)


def test_mux_peer_that_breaks_the_protocol_amid_a_message_to_it_hears_no_goodbye():
    """It would be read as the message's next part."""
    with hostile_client() as bench:
        bench.engine.send_control(bench.link, b'{"type":"rea', 1)
        bench.peer.read(FrameType.CONTROL)
        bench.peer.send(open_frame(4))
        assert bench.down() is LinkDown.PROTOCOL
        assert bench.peer.until_end() == []


def test_mux_peer_that_breaks_the_protocol_and_stays_is_cut_two_seconds_later():
    """Neither a peer that reads nothing of what is queued for it nor one that never closes keeps its conn."""
    with hostile_client() as bench, hostile_client_beside(bench) as silent, connect(silent.port) as visitor:
        stream = silent.peer.read(FrameType.OPEN).stream
        silent.peer.send(credit(stream, 1 << 30))
        visitor.settimeout(0.5)
        with contextlib.suppress(TimeoutError, ConnectionResetError):
            while True:             # until the engine's queue and the kernel's buffers are full
                visitor.sendall(bytes(1 << 20))
        bench.peer.send(open_frame(4))
        silent.peer.send(open_frame(4))
        assert silent.down() is LinkDown.PROTOCOL
        assert bench.engine.stats()["conns_open"] > conns_without(bench)
        eventually(lambda: bench.engine.stats()["conns_open"] == conns_without(bench), within_s=4)
        assert bench.engine.stats()["buffer_bytes"] == 0


def test_mux_frames_of_a_stream_that_is_over_are_ignored():
    with hostile_client() as bench:
        with connect(bench.port) as visitor:
            bench.peer.read(FrameType.OPEN)
            abort(visitor)
        assert bench.peer.read(FrameType.RESET).payload == REASON_GONE.to_bytes(2, "big")
        bench.peer.send(
            frame(FrameType.DATA, 2, bytes(65535)) * 8, frame(FrameType.FIN, 2), frame(FrameType.FIN, 2),
            credit(2, 5), frame(FrameType.RESET, 2, b"\0\1"), frame(FrameType.DATAGRAM, 2, b"x"),
        )
        bench.peer.ping()
        with connect(bench.port) as visitor:
            assert bench.peer.read(FrameType.OPEN).stream == 4


def test_mux_stream_opened_at_a_server_is_refused():
    with hostile_client() as bench:
        for stream, service in ((1, Service.TCP), (3, Service.HTTP), (7, Service.TLS), (2**31 + 1, Service.UDP)):
            bench.peer.send(open_frame(stream, service))
            one = bench.peer.read(FrameType.RESET)
            assert (one.stream, int.from_bytes(one.payload, "big")) == (stream, REASON_NO_SERVICE)


def test_mux_stream_for_a_port_nobody_serves_is_refused_with_a_reason():
    with hostile_server() as bench:
        for stream, service, port in ((2, Service.TCP, 23), (4, Service.UDP, 22), (6, Service.TLS, 22)):
            bench.peer.send(open_frame(stream, service, port, name=b"a.example"))
            one = bench.peer.read(FrameType.RESET)
            assert (one.stream, int.from_bytes(one.payload, "big")) == (stream, REASON_NO_SERVICE)


def test_mux_data_in_the_same_write_as_open_is_served():
    with hostile_server() as bench:
        bench.peer.send(open_frame(2), frame(FrameType.DATA, 2, b"no round trip"), frame(FrameType.FIN, 2))
        assert bench.peer.read(FrameType.DATA).payload == b"no round trip"
        assert bench.peer.read(FrameType.FIN).stream == 2


def test_mux_reset_in_the_same_write_as_open_leaves_nothing():
    with hostile_server() as bench:
        for stream in range(2, 2002, 2):
            data = frame(FrameType.DATA, stream, b"x" * 100)
            bench.peer.send(open_frame(stream), data, frame(FrameType.RESET, stream, b"\0\1"))
        bench.peer.ping()
        bench.pair.assert_idle()


# --- floods -----------------------------------------------------------------------------------------------------------


def flood(bench: Bench, text: bytes, within_s: float = 20) -> LinkDown:
    """Send until the engine ends the link; what it answers is read, so that nothing is held back."""
    peer = bench.peer
    stop = threading.Event()

    def drain() -> None:
        try:
            while not stop.is_set() and peer.sock.recv(1 << 20):
                pass
        except OSError:
            return

    reader = threading.Thread(target=drain, daemon=True)
    reader.start()
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline and peer.try_send(text):
        pass
    code = bench.down()
    stop.set()
    reader.join(5)
    return code


def test_mux_ping_flood_ends_its_link_alone():
    with hostile_client() as bench:
        assert flood(bench, frame(FrameType.PING, 0, b"12345678") * 50) is LinkDown.PROTOCOL


def test_mux_open_flood_ends_its_link_alone():
    with hostile_client() as bench:
        text = b"".join(open_frame(stream) for stream in range(1, 200_001, 2))
        bench.peer.try_send(text)
        assert bench.down() is LinkDown.PROTOCOL


def test_mux_control_flood_ends_its_link_alone():
    """Small control messages, faster than any control plane has use for."""
    with hostile_client() as bench:
        assert flood(bench, frame(FrameType.CONTROL, 0, b"{}") * 500) is LinkDown.PROTOCOL


def test_mux_control_flood_that_nobody_drains_is_bounded():
    """Large control messages while Python is busy: the engine stops reading the link."""
    with hostile_client() as bench:
        peer = bench.peer
        peer.sock.settimeout(1)
        sent = 0
        try:
            while sent < 200_000_000:
                peer.send(frame(FrameType.CONTROL, 0, bytes(65535), flags=1))
                sent += 65535
        except TimeoutError:
            pass
        except OSError:
            pass
        assert sent < 40_000_000


def test_mux_reset_flood_is_ignored_or_ends_its_link_alone():
    with hostile_client() as bench:
        with connect(bench.port) as visitor:
            bench.peer.read(FrameType.OPEN)
            abort(visitor)
        bench.peer.read(FrameType.RESET)
        for _ in range(100):
            bench.peer.send(frame(FrameType.RESET, 2, b"\0\1") * 1000)
        bench.peer.ping()


def test_mux_peer_that_never_reads_its_answers_is_cut_off():
    """Every OPEN is answered with RESET; a peer that reads nothing must not make them pile up."""
    with hostile_client() as bench:
        stream = 1
        deadline = time.monotonic() + 60
        bench.peer.sock.settimeout(3)
        top = 0
        while time.monotonic() < deadline:
            text = b"".join(open_frame(stream + 2 * number) for number in range(4000))
            stream += 8000
            try:
                if not bench.peer.try_send(text):
                    break
            except TimeoutError:
                break
            top = max(top, bench.engine.stats()["buffer_bytes"])
        assert top < 16 << 20


GARBAGE = {
    "zeros": bytes(100_000),
    "ones": b"\xff" * 100_000,
    "pattern": pattern(100_000, seed=3),
    "http": b"GET / HTTP/1.1\r\n\r\n" * 500,
}


@pytest.mark.parametrize("text", GARBAGE.values(), ids=GARBAGE.keys())
def test_mux_garbage_inside_tls_ends_its_link_or_is_skipped(text):
    with hostile_client() as bench:
        bench.peer.try_send(text)
        bench.peer.sock.close()
        assert bench.down() in (LinkDown.PROTOCOL, LinkDown.CLOSED, LinkDown.SYSTEM)


# --- memory -----------------------------------------------------------------------------------------------------------


def test_mux_one_byte_for_each_of_many_stopped_streams_stays_near_the_limit():
    """The worst a peer can do to memory: a block for each stream, all in one read."""
    limit = 8 << 20
    with hostile_client(memory_limit_bytes=limit) as bench:
        visitors = []
        count = 1500
        for _ in range(count):
            visitors.append(connect(bench.port, receive_buffer_bytes=2048))
        for _ in range(count):
            bench.peer.read(FrameType.OPEN)
        top: list[int] = [0]
        stop = threading.Event()

        def watch() -> None:
            while not stop.is_set():
                top[0] = max(top[0], bench.engine.stats()["buffer_bytes"])

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        bench.peer.sock.settimeout(2)
        try:
            for _ in range(120):
                bench.peer.send(b"".join(frame(FrameType.DATA, 2 + 2 * n, b"x" * 1000) for n in range(count)))
        except OSError:
            pass
        stop.set()
        join_thread(watcher)
        for visitor in visitors:
            abort(visitor)
        assert top[0] <= limit + (2 << 20)


Killer = Callable[[Bench], None]


@pytest.mark.parametrize(
    "kill",
    [
        lambda bench: bench.peer.close(),
        lambda bench: abort(bench.peer.sock),
        lambda bench: bench.engine.abort_link(bench.link),
        lambda bench: bench.engine.close_link(bench.link),
        lambda bench: bench.peer.send(frame(FrameType.DATA, 0, b"x")),
    ],
    ids=["closed", "reset", "abort_link", "close_link", "broken"],
)
def test_mux_link_that_goes_while_streams_are_open_resets_their_visitors(kill: Killer):
    with hostile_client() as bench:
        visitors = [connect(bench.port) for _ in range(20)]
        for visitor in visitors:
            bench.peer.read(FrameType.OPEN)
            visitor.sendall(bytes(1000))
        kill(bench)
        bench.down()
        for visitor in visitors:
            assert is_reset(visitor)
            visitor.close()


# --- ids that begin again ---------------------------------------------------------------------------------------------

NEAR_THE_END = 2**32 - 8


def move_ids(pair: Pair) -> None:
    for engine in (pair.server, pair.client):
        set_last_id(engine, NEAR_THE_END)


def test_stream_ids_run_out_streams_go_on_around_the_end():
    """At 70,000 requests a second the ids of a link last for hours only."""
    with engine_pair() as pair, tcp_upstream(echo) as upstream:
        move_ids(pair)
        port = pair.serve_tcp("echo", upstream.upstream)
        with connect(port) as lasting:
            lasting.sendall(b"first")
            assert read_exactly(lasting, 5) == b"first"
            for _ in range(6):
                assert exchange_bytes(port, b"around") == b"around"
            lasting.sendall(b"still")
            assert read_exactly(lasting, 5) == b"still"
        assert pair.server.stats()["links_total"] == 1
        pair.assert_idle()


def test_stream_ids_run_out_begin_again_at_two():
    with hostile_client() as bench:
        move_ids(bench.pair)
        ids = []
        for _ in range(5):
            with connect(bench.port):
                ids.append(bench.peer.read(FrameType.OPEN).stream)
        assert ids == [2**32 - 6, 2**32 - 4, 2**32 - 2, 2, 4]


def test_peer_whose_ids_begin_again_is_followed():
    with hostile_server() as bench:
        move_ids(bench.pair)
        for stream in (2**32 - 4, 2**32 - 2, 2, 6):
            bench.peer.send(open_frame(stream), frame(FrameType.DATA, stream, b"x"))
            assert bench.peer.read(FrameType.DATA)[2:] == (stream, b"x")


@pytest.mark.parametrize(
    "wrong",
    [open_frame(2**32 - 2), open_frame(6), open_frame(2**31 + 8), frame(FrameType.FIN, 8)],
    ids=["before the end", "again", "half a circle ahead", "fin of one that is still to come"],
)
def test_peer_whose_ids_began_again_goes_back_ends_the_link(wrong):
    with hostile_server() as bench:
        move_ids(bench.pair)
        for stream in (2**32 - 2, 6):
            bench.peer.send(open_frame(stream))
        bench.peer.ping()
        bench.peer.send(wrong)
        assert bench.down() is LinkDown.PROTOCOL
