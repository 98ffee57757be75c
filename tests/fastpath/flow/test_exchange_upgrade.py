"""101 and what follows it: bytes right behind, half-closes, upgrades refused or never asked for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.engines import Pair, eventually
from tests.support.http_wire import Ended, Message, ScriptedUpstream, Wire, request, response, serving
from tests.support.threads import join_thread

Visit = Callable[[], Wire]
ASK = request("/chat", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: x")
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


def echo_after_switch(wire: Wire) -> None:
    asked = wire.read_head()
    assert asked.one("Connection").lower() == "upgrade" and asked.one("Upgrade") == "websocket"
    wire.send(SWITCH)
    while True:
        if not wire.waiting:
            try:
                wire.fill()
            except Ended:
                return
        data, wire.waiting = wire.waiting, b""
        wire.send(data)


def test_upgrade_carries_bytes_both_ways(pair: Pair, visit: Visit) -> None:
    with ScriptedUpstream(echo_after_switch) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        visitor.send(ASK)
        head = visitor.read_response()
        assert (head.status, head.one("Connection").lower(), head.one("Upgrade")) == (101, "upgrade", "websocket")
        for size in (1, 100, 20_000, 300_000):
            sender = threading.Thread(target=visitor.sock.sendall, args=(b"z" * size,), daemon=True)
            sender.start()
            assert visitor.read(size) == b"z" * size
            join_thread(sender)


def test_upgrade_bytes_right_behind_the_request_wait_for_the_101(pair: Pair, visit: Visit) -> None:
    early: list[bytes] = []
    go_on = threading.Event()

    def script(wire: Wire) -> None:
        wire.read_head()
        early.append(wire.waiting)
        wire.sock.settimeout(0.2)
        with pytest.raises(TimeoutError):
            wire.fill()
        wire.sock.settimeout(5)
        wire.send(SWITCH + b"first words")
        assert wire.read(11) == b"early bytes"
        assert go_on.wait(5)

    with ScriptedUpstream(script) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        visitor.send(ASK + b"early bytes")
        assert visitor.read_response().status == 101
        assert visitor.read(11) == b"first words"
        go_on.set()
        visitor.assert_gone()
    assert early == [b""]


def test_upgrade_much_right_behind_both_heads_arrives_whole(pair: Pair, visit: Visit) -> None:
    size = 1_500_000

    def script(wire: Wire) -> None:
        wire.read_head()
        sender = threading.Thread(target=wire.sock.sendall, args=(SWITCH + b"d" * size,), daemon=True)
        sender.start()
        assert wire.read(size) == b"u" * size
        join_thread(sender)
        wire.send(b"end")

    with ScriptedUpstream(script) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        sender = threading.Thread(target=visitor.sock.sendall, args=(ASK + b"u" * size,), daemon=True)
        sender.start()
        assert visitor.read_response().status == 101
        assert visitor.read(size) == b"d" * size
        assert visitor.read(3) == b"end"
        join_thread(sender)


def test_upgrade_half_close_by_the_visitor_reaches_the_upstream_which_answers_on(pair: Pair, visit: Visit) -> None:
    def script(wire: Wire) -> None:
        wire.read_head()
        wire.send(SWITCH)
        got = wire.read_to_end()
        wire.send(b"got %d" % len(got))

    with ScriptedUpstream(script) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        visitor.send(ASK)
        visitor.read_response()
        visitor.send(b"v" * 100_000)
        visitor.end_sending()
        assert visitor.read_to_end() == b"got 100000"


def test_upgrade_half_close_by_the_upstream_reaches_the_visitor_which_sends_on(pair: Pair, visit: Visit) -> None:
    got: list[bytes] = []

    def script(wire: Wire) -> None:
        wire.read_head()
        wire.send(SWITCH, b"last words")
        wire.end_sending()
        got.append(wire.read_to_end())

    with ScriptedUpstream(script) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        visitor.send(ASK)
        visitor.read_response()
        assert visitor.read_to_end() == b"last words"
        visitor.send(b"w" * 3_000_000)
        visitor.end_sending()
        eventually(lambda: upstream.ended_count == 1)
        assert got == [b"w" * 3_000_000]


@pytest.mark.parametrize("size", [120_000, 160_000, 200_000, 220_000, 240_000, 260_000, 280_000])
def test_upgrade_what_waits_for_the_upstream_when_both_sides_have_ended_is_delivered(
    pair: Pair, visit: Visit, tmp_path: Path, size: int
) -> None:
    """A Unix socket's kernel buffer is small and exact: beyond it, bytes wait in the engine."""
    got: list[bytes] = []
    go_on = threading.Event()

    def script(wire: Wire) -> None:
        wire.read_head()
        wire.send(SWITCH)
        wire.end_sending()
        assert go_on.wait(10)
        got.append(wire.read_to_end())

    with ScriptedUpstream(script, unix_path=str(tmp_path / "u.sock")) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        visitor.send(ASK)
        visitor.read_response()
        assert visitor.read_to_end() == b""
        visitor.send(b"s" * size)
        visitor.end_sending()
        deadline = time.monotonic() + 0.5               # where more waits than the engine takes, the end comes later
        while pair.client.stats()["streams_open"] and time.monotonic() < deadline:
            time.sleep(0.005)
        go_on.set()
        eventually(lambda: upstream.ended_count == 1)
        assert len(got[0]) == size


def test_upgrade_visitor_aborts_and_the_upstream_conn_goes_at_once(pair: Pair, visit: Visit) -> None:
    with ScriptedUpstream(echo_after_switch) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        visitor.send(ASK)
        visitor.read_response()
        visitor.abort()
        eventually(lambda: upstream.ended_count == 1)


def test_upgrade_upstream_aborts_and_the_visitor_is_aborted(pair: Pair, visit: Visit) -> None:
    def script(wire: Wire) -> None:
        wire.read_head()
        wire.send(SWITCH)
        wire.read(2)
        wire.abort()

    with ScriptedUpstream(script) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        visitor.send(ASK)
        visitor.read_response()
        visitor.send(b"go")
        with pytest.raises(Ended) as ended:
            visitor.read_to_end()
        assert ended.value.reset


def test_upgrade_refused_is_a_normal_answer_and_the_next_request_is_parsed(pair: Pair, visit: Visit) -> None:
    def handle(wire: Wire, asked: Message) -> None:
        wire.send(response(asked.target.encode(), "200 OK" if asked.target == "/next" else "403 Forbidden"))

    with ScriptedUpstream(serving(handle)) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        visitor.send(ASK + request("/next"))
        assert visitor.read_response().status == 403
        assert visitor.read_response().body == b"/next"


def test_upgrade_refused_and_bytes_behind_that_are_no_request_are_400(pair: Pair, visit: Visit) -> None:
    with ScriptedUpstream(serving(lambda wire, asked: wire.send(response()))) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        visitor.send(ASK + b"\x81\x85binary frame")
        assert visitor.read_response().status == 200
        assert visitor.read_response().code == "SPK-BAD-REQUEST"
        visitor.assert_closed()
        assert len(upstream.conns) == 1


def test_upgrade_refused_with_426_keeps_its_upgrade_field(pair: Pair, visit: Visit) -> None:
    answer = response(b"", "426 Upgrade Required", "Upgrade: websocket", "Connection: upgrade")
    with ScriptedUpstream(serving(lambda wire, asked: wire.send(answer))) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        for _ in range(2):
            visitor.send(request())
            got = visitor.read_response()
            assert (got.status, got.one("Upgrade")) == (426, "websocket")


@pytest.mark.parametrize(
    "asked",
    [
        request(),
        request("/", "Upgrade: websocket"),
        request("/", "Connection: upgrade"),
        request("/", "Connection: upgrade", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk"),
        request("/", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk"),
        request("/", "Connection: upgrade", "Upgrade: websocket", version="1.0"),
    ],
)
def test_101_nobody_asked_for_is_502_and_opens_nothing(pair: Pair, visit: Visit, asked: bytes) -> None:
    seen: list[Message] = []

    def script(wire: Wire) -> None:
        seen.append(wire.read_head())
        wire.send(SWITCH)
        assert wire.read_to_end() == b""

    with ScriptedUpstream(script) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        visitor.send(asked + request("/smuggled"))
        answer = visitor.read_response()
        assert (answer.status, answer.code) == (502, "SPK-UPSTREAM-BROKEN")
    assert seen[0].all("Upgrade") == []


@pytest.mark.parametrize(
    "switch",
    [
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.0 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    ],
)
def test_101_that_is_malformed_is_502(pair: Pair, visit: Visit, switch: bytes) -> None:
    def script(wire: Wire) -> None:
        wire.read_head()
        wire.send(switch)
        wire.read_to_end()

    with ScriptedUpstream(script) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        visitor.send(ASK)
        assert visitor.read_response().code == "SPK-UPSTREAM-BROKEN"


def test_upgrade_split_at_every_byte_works(pair: Pair, visit: Visit) -> None:
    cuts = iter(range(1, len(SWITCH) + 3))

    def script(wire: Wire) -> None:
        wire.read_head()
        cut, whole = next(cuts), SWITCH + b"abc"
        wire.send_in_parts([whole[:cut], whole[cut:]])
        assert wire.read(4) == b"wxyz"

    with ScriptedUpstream(script) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        for i in range(1, len(SWITCH) + 3):
            with visit() as visitor:
                whole = ASK + b"wxyz"
                cut = i * len(whole) // (len(SWITCH) + 3) or 1
                visitor.send_in_parts([whole[:cut], whole[cut:]])
                assert visitor.read_response().status == 101
                assert visitor.read(3) == b"abc"
