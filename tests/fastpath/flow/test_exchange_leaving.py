"""Visitors that leave, half-close, crawl or stall: what is theirs goes at once, what is others' goes on."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable

import pytest

from spokes._fastpath.engine import ListenerKind
from tests.support.engines import Pair, eventually, listening
from tests.support.http_wire import Ended, ScriptedUpstream, Wire, answering, chunked, request, response, serving

Visit = Callable[[], Wire]


def narrow(pair: Pair, port: int = 0) -> Wire:
    """A visitor whose kernel takes little before it is read."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(("127.0.0.1", port or pair.ports["http"]))
    return Wire(sock)


def gone(pair: Pair) -> None:
    for engine in (pair.server, pair.client):
        eventually(lambda engine=engine: engine.stats()["streams_open"] == 0, within_s=1)
    eventually(lambda: pair.server.stats()["visitors_open"] == 0, within_s=1)
    eventually(lambda: pair.client.stats()["upstreams_open"] == 0, within_s=1)


@pytest.mark.parametrize("abort", [False, True], ids=["close", "abort"])
def test_visitor_leaves_in_mid_head_nothing_is_opened(pair: Pair, visit: Visit, abort: bool) -> None:
    visitor = visit()
    visitor.send(b"GET / HTTP/1.1\r\nHost: a.tun")
    eventually(lambda: pair.server.stats()["visitors_open"] == 1)
    visitor.abort() if abort else visitor.close()
    gone(pair)
    assert pair.server.stats()["streams_total"] == 0


@pytest.mark.parametrize("abort", [False, True], ids=["close", "abort"])
@pytest.mark.parametrize("framing", ["Content-Length: 100000", "Transfer-Encoding: chunked"])
def test_visitor_leaves_in_mid_body_and_the_upstream_conn_goes_at_once(
    pair: Pair, visit: Visit, framing: str, abort: bool
) -> None:
    cut: list[bool] = []

    def script(wire: Wire) -> None:
        wire.read_head()
        wire.read_until(b"part")
        try:
            wire.fill()
        except Ended:
            cut.append(True)

    with ScriptedUpstream(script) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        visitor.send(request("/", framing, method="POST"), b"4\r\npart" if "chunked" in framing else b"part")
        eventually(lambda: len(upstream.conns) == 1)
        visitor.abort() if abort else visitor.close()
        eventually(lambda: cut == [True])
        gone(pair)


@pytest.mark.parametrize("abort", [False, True], ids=["close", "abort"])
def test_visitor_leaves_in_mid_response_and_the_upstream_conn_goes_at_once(
    pair: Pair, visit: Visit, abort: bool
) -> None:
    def script(wire: Wire) -> None:
        wire.read_request()
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n")
        while True:
            wire.send(b"x" * 65536)

    with ScriptedUpstream(script) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        visitor.send(request())
        visitor.read(1_000_000)
        visitor.abort() if abort else visitor.close()
        eventually(lambda: upstream.ended_count == 1)
        gone(pair)


def test_visitor_aborts_before_its_answer_and_the_upstream_conn_goes_at_once(pair: Pair, visit: Visit) -> None:
    with ScriptedUpstream(lambda wire: wire.read_to_end() and None) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        visitor.send(request())
        eventually(lambda: len(upstream.conns) == 1)
        visitor.abort()
        eventually(lambda: upstream.ended_count == 1)
        gone(pair)


@pytest.mark.parametrize("sent_at_once", [False, True], ids=["later", "with-the-request"])
@pytest.mark.parametrize("behind", [b"", b"GET /next HTTP/1.1\r\nHost: a.tun.test\r\n\r\n"], ids=["alone", "pipelined"])
def test_visitor_closes_before_its_answer_and_is_found_out(
    pair: Pair, visit: Visit, behind: bytes, sent_at_once: bool
) -> None:
    """A close looks like a half-close: the interim answer that it is sent after a second brings the RST."""
    with ScriptedUpstream(lambda wire: wire.read_to_end() and None) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        visitor.send(request(), behind)
        if not sent_at_once:
            eventually(lambda: len(upstream.conns) == 1)
        visitor.close()
        eventually(lambda: upstream.ended_count == 1, within_s=3)
        gone(pair)


def test_half_closed_visitor_is_asked_once_and_gets_a_late_answer(pair: Pair, visit: Visit) -> None:
    go_on = threading.Event()

    def script(wire: Wire) -> None:
        wire.read_request()
        assert go_on.wait(10)
        wire.send(response(b"late"))

    with ScriptedUpstream(script) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        visitor.send(request())
        visitor.end_sending()
        assert visitor.read_head().start == "HTTP/1.1 100 Continue"
        go_on.set()
        answer = visitor.read_response()
        assert (answer.body, answer.interims) == (b"late", [])
        visitor.assert_closed()


def test_half_closed_visitor_of_http_1_0_is_not_asked(pair: Pair, visit: Visit) -> None:
    """It knows no interim answers."""
    go_on = threading.Event()

    def script(wire: Wire) -> None:
        wire.read_request()
        assert go_on.wait(10)
        wire.send(response(b"late"))

    with ScriptedUpstream(script) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        visitor.send(request(version="1.0"))
        visitor.end_sending()
        visitor.sock.settimeout(2)
        with pytest.raises(TimeoutError):
            visitor.fill()
        go_on.set()
        assert visitor.read_response().interims == []


def test_visitor_that_reads_nothing_leaves_and_what_was_queued_goes(pair: Pair) -> None:
    def script(wire: Wire) -> None:
        wire.read_request()
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n")
        while True:
            wire.send(b"x" * 65536)

    with ScriptedUpstream(script) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitors = [narrow(pair) for _ in range(10)]
        for visitor in visitors:
            visitor.send(request())
        eventually(lambda: pair.server.stats()["buffer_bytes"] > 10 * 65536)
        for visitor in visitors:
            visitor.abort()
        gone(pair)
        for engine in (pair.server, pair.client):
            eventually(lambda engine=engine: engine.stats()["buffer_bytes"] == 0, within_s=1)


def test_half_closed_visitor_still_gets_its_answer(pair: Pair, visit: Visit) -> None:
    go_on = threading.Event()

    def script(wire: Wire) -> None:
        wire.read_request()
        assert go_on.wait(5)
        wire.send(response(b"y" * 1_000_000))

    with ScriptedUpstream(script) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        visitor.send(request())
        eventually(lambda: len(upstream.conns) == 1)
        visitor.end_sending()
        go_on.set()
        answer = visitor.read_response()
        assert answer.body == b"y" * 1_000_000
        visitor.assert_closed()


@pytest.mark.parametrize("count", [1, 2, 5])
def test_half_closed_visitor_gets_the_answers_of_all_it_had_sent(pair: Pair, visit: Visit, count: int) -> None:
    with ScriptedUpstream(serving(lambda wire, asked: wire.send(response(asked.target.encode() * 1000)))) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        visitor.send(*(request(f"/{i}", method="POST", body=b"b" * 5000) for i in range(count)))
        visitor.end_sending()
        for i in range(count):
            assert visitor.read_response().body == f"/{i}".encode() * 1000
        visitor.assert_closed()


def test_half_closed_visitor_gets_its_page(pair: Pair, visit: Visit) -> None:
    visitor = visit()
    visitor.send(request(host="unknown.test"))
    visitor.end_sending()
    assert visitor.read_response().code == "SPK-UNKNOWN-HOST"
    visitor.assert_closed()


@pytest.mark.parametrize("fields", [(), ("Connection: close",)], ids=["keep-alive", "close"])
@pytest.mark.parametrize("half_close", [False, True], ids=["open", "half-closed"])
def test_slow_visitor_gets_every_byte(pair: Pair, fields: tuple[str, ...], half_close: bool) -> None:
    """The upstream is done long before; what waits in the engine is not dropped, whoever closes."""
    body = b"0123456789abcdef" * 180_000
    with ScriptedUpstream(answering(response(body))) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        with narrow(pair) as visitor:
            visitor.send(request("/", *fields))
            if half_close:
                visitor.end_sending()
            got = []
            while sum(map(len, got)) < len(body):
                got.append(visitor.sock.recv(4096 if len(got) < 50 else 65536))
                assert got[-1], "closed early"
                if len(got) < 50:
                    time.sleep(0.005)
            data = b"".join(got)
            _, _, rest = data.partition(b"\r\n\r\n")
            visitor.waiting = rest
            assert visitor.read(len(body)) == body


def test_visitors_that_pause_for_longer_than_the_linger_time_get_every_byte(pair: Pair) -> None:
    """The kernel is given little room, so what is not read yet waits in the engine while its conn is closing."""
    sock = listening()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    port = sock.getsockname()[1]
    pair.server.add_listener(ListenerKind.HTTP, sock.detach(), worker=0, port=port)
    body = b"0123456789abcdef" * 3500
    chunks = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(body, 9999)
    cases = {
        "response": request("/", "Connection: close"),
        "page behind a response": request("/") + b"no request\r\n\r\n",
        "HTTP/1.0": request("/", host="chunks.test", version="1.0"),
    }
    with ScriptedUpstream(answering(response(body))) as whole, ScriptedUpstream(answering(chunks)) as cut:
        pair.serve_http("a.tun.test", whole.upstream())
        pair.serve_http("chunks.test", cut.upstream())
        visitors = [(name, half_close, narrow(pair, port)) for name in cases for half_close in (False, True)]
        for name, half_close, visitor in visitors:
            visitor.send(cases[name])
            if half_close:
                visitor.end_sending()
        # A stream between requests stays: that of the page's visitors, whose second request is read after the first.
        eventually(lambda: pair.client.stats()["streams_total"] == 6 and pair.client.stats()["streams_open"] <= 2)
        time.sleep(2.5)
        for name, _, visitor in visitors:
            visitor.read_head()
            assert visitor.read(len(body)) == body
            if name == "page behind a response":
                assert visitor.read_response().code == "SPK-BAD-REQUEST"
            visitor.assert_closed()
            visitor.close()


def test_slow_visitor_does_not_stop_another_on_the_same_link(pair: Pair, visit: Visit) -> None:
    body = b"z" * 20_000_000

    def handle(wire: Wire, asked: object) -> None:
        target = asked.target
        wire.send(response(body if target == "/big" else b"small"))

    with ScriptedUpstream(serving(handle)) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        slow = [narrow(pair) for _ in range(8)]
        for visitor in slow:
            visitor.send(request("/big"))
        eventually(lambda: pair.server.stats()["buffer_bytes"] > 8 * 65536)
        quick = visit()
        began = time.monotonic()
        for _ in range(100):
            quick.send(request("/small"))
            assert quick.read_response().body == b"small"
        quick.send(request("/big"))
        assert quick.read_response().body == body
        assert time.monotonic() - began < 5
        assert pair.server.stats()["links_open"] == 1
        for visitor in slow:
            visitor.close()


def test_slow_upstream_does_not_stop_another_on_the_same_link(pair: Pair, visit: Visit) -> None:
    go_on = threading.Event()

    def stuck(wire: Wire) -> None:
        wire.read_head()
        assert go_on.wait(10)

    with ScriptedUpstream(stuck) as slow, ScriptedUpstream(answering(response(b"small"))) as quick:
        pair.serve_http("slow.tun.test", slow.upstream())
        pair.serve_http("quick.tun.test", quick.upstream())
        uploads = [visit() for _ in range(4)]
        for upload in uploads:
            upload.send(request("/", "Content-Length: 50000000", host="slow.tun.test", method="POST"))
            threading.Thread(target=_push, args=(upload,), daemon=True).start()
        eventually(lambda: pair.client.stats()["buffer_bytes"] > 4 * 65536)
        visitor = visit()
        for _ in range(100):
            visitor.send(request(host="quick.tun.test"))
            assert visitor.read_response().body == b"small"
        for upload in uploads:
            upload.sock.shutdown(socket.SHUT_RDWR)
        go_on.set()


def _push(wire: Wire) -> None:
    try:
        for _ in range(50):
            wire.send(b"u" * 1_000_000)
    except OSError:
        pass


@pytest.mark.slow
def test_slow_head_is_408_after_ten_seconds_in_all(pair: Pair, visit: Visit) -> None:
    visitor = visit()
    began = time.monotonic()
    with pytest.raises((Ended, ConnectionError)):
        for byte in request("/", "X: " + "y" * 1000):
            visitor.send(bytes([byte]))
            visitor.sock.settimeout(0.2)
            try:
                visitor.fill()
                break
            except TimeoutError:
                continue
        visitor.sock.settimeout(10)
        assert visitor.read_response().code == "SPK-TIMEOUT"
        assert 9.5 < time.monotonic() - began < 12
        visitor.send(b"x")
        visitor.read(1)


@pytest.mark.slow
def test_silent_visitor_is_408_after_ten_seconds(pair: Pair, visit: Visit) -> None:
    visitor = visit()
    visitor.sock.settimeout(15)
    began = time.monotonic()
    assert visitor.read_response().code == "SPK-TIMEOUT"
    assert 9.5 < time.monotonic() - began < 12


@pytest.mark.slow
def test_request_body_that_stands_still_blames_who_stopped(pair: Pair, visit: Visit) -> None:
    """After a minute: 408 for a visitor that sends nothing, 504 where the upstream takes nothing, a cut where the
    response has begun. All at once, because only time can show it."""
    go_on = threading.Event()

    def silent(wire: Wire) -> None:
        wire.read_head()
        assert go_on.wait(90)

    def early(wire: Wire) -> None:
        wire.read_head()
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegun")
        assert go_on.wait(90)

    with ScriptedUpstream(silent) as mute, ScriptedUpstream(early) as quick:
        pair.serve_http("mute.tun.test", mute.upstream())
        pair.serve_http("quick.tun.test", quick.upstream())
        lazy, stuck, cut = visit(), visit(), visit()
        lazy.send(request("/", "Content-Length: 50", host="mute.tun.test", method="POST"), b"part")
        stuck.send(request("/", "Content-Length: 50000000", host="mute.tun.test", method="POST"))
        cut.send(request("/", "Content-Length: 50000000", host="quick.tun.test", method="POST"))
        assert cut.read_until(b"begun")
        for upload in (stuck, cut):
            threading.Thread(target=_push, args=(upload,), daemon=True).start()
            upload.sock.settimeout(80)
        lazy.sock.settimeout(80)
        began = time.monotonic()
        assert lazy.read_response().code == "SPK-TIMEOUT"
        answer = stuck.read_response()
        assert (answer.status, answer.code) == (504, "SPK-UPSTREAM-TIMEOUT")
        with pytest.raises(Ended):
            cut.read(1)
        assert 59 < time.monotonic() - began < 75
        go_on.set()
