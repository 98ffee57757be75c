"""Limits of one route: bodies, lines of a head, silence of upstreams and of peers of UDP; over TCP and TLS alike."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import h11
import pytest

from spokes._fastpath.engine import FAULT_CODES, Limits, ListenerKind, Policy, RouteKind, Site, Upstream
from spokes._fastpath.hooks import http1_hooks as http1
from spokes.errors import EngineError
from tests.fastpath.flow.test_udp import udp_echo, udp_socket
from tests.support.engines import Pair, engine_pair, eventually
from tests.support.http_wire import (
    Ended,
    Message,
    ScriptedUpstream,
    Wire,
    answering,
    chunked,
    request,
    response,
    serving,
)
from tests.support.visitors import visitors

Visit = Callable[[], Wire]

HOST = "a.tun.test"
RC_TARGET, RC_LIMIT, RC_TOO_LARGE = -5013, -5003, -5011
CHUNKED = "Transfer-Encoding: chunked"


@pytest.fixture(params=["tcp", "tls"])
def visit(pair: Pair, request: pytest.FixtureRequest) -> Iterator[Visit]:
    with visitors(pair, HOST, by_tls=request.param == "tls") as connect:
        yield connect


def limit(pair: Pair, *, host: str = HOST, **limits: float) -> None:
    policy = Policy(limits=Limits(**limits))  # type: ignore[arg-type]
    pair.server.set_route(RouteKind.HTTP, host, Site(tunnels=(pair.server_tunnel,), policy=policy))
    pair.publish()


def echo(wire: Wire, asked: Message) -> None:
    wire.send(response(asked.body))


def refused(visitor: Wire, status: int, code: str) -> None:
    answer = visitor.read_response()
    assert (answer.status, answer.code, answer.one("Connection")) == (status, code, "close")


def too_large(visitor: Wire) -> None:
    refused(visitor, 413, "SPK-BODY-TOO-LARGE")


# --- bodies


def posted(body: bytes, framing: str, chunk_bytes: int = 7) -> bytes:
    if framing == "length":
        return request(method="POST", body=body)
    return request("/", CHUNKED, method="POST") + chunked(body, chunk_bytes)


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_body_of_the_limit_is_taken_and_one_byte_more_refused(pair: Pair, visit: Visit, framing: str) -> None:
    with ScriptedUpstream(serving(echo)) as upstream:
        pair.serve_http(HOST, upstream.upstream())
        limit(pair, body_bytes_max=20)
        visitor = visit()
        for count in (19, 20):
            visitor.send(posted(b"x" * count, framing))
            assert visitor.read_response().body == b"x" * count
        visitor.send(posted(b"x" * 21, framing))
        too_large(visitor)


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("count", [20, 21])
def test_body_split_at_every_byte_has_the_same_answer(pair: Pair, visit: Visit, framing: str, count: int) -> None:
    raw = posted(b"x" * count, framing)
    with ScriptedUpstream(serving(echo)) as upstream:
        pair.serve_http(HOST, upstream.upstream())
        limit(pair, body_bytes_max=20)
        visitor = visit()
        for cut in range(1, len(raw)):
            visitor.send(raw[:cut])
            if count == 21 and framing == "length" and cut >= raw.index(b"\r\n\r\n") + 4:
                too_large(visitor)                      # by its head alone, before the first byte of the body
                visitor = visit()
                continue
            visitor.send(raw[cut:])
            if count == 20:
                assert visitor.read_response().body == b"x" * count
            else:
                too_large(visitor)
                visitor.close()
                visitor = visit()


@pytest.mark.parametrize("cut", range(1, 40))
def test_chunks_are_counted_the_same_wherever_they_are_cut(cut: int) -> None:
    raw = chunked(b"x" * 21, 7)
    passed, taken, rc = http1.walk_body(2, 0, [raw[:cut], raw[cut:]], room=20)
    assert (rc, taken) == (RC_LIMIT, raw.index(b"7\r\n", 24) + 2)
    assert passed == raw[:taken]
    assert http1.walk_body(2, 0, [raw[:cut], raw[cut:]], room=21) == (raw, len(raw), True)


def test_chunk_that_is_too_large_is_refused_before_its_first_byte(pair: Pair, visit: Visit) -> None:
    with ScriptedUpstream(serving(echo)) as upstream:
        pair.serve_http(HOST, upstream.upstream())
        limit(pair, body_bytes_max=1000)
        visitor = visit()
        visitor.send(request("/", CHUNKED, method="POST"), b"3e9\r\n")
        too_large(visitor)


def test_refused_upload_is_drained_and_what_follows_is_no_request(pair: Pair, visit: Visit) -> None:
    """Keep-alive does not reach behind a body that was not read: its rest is never taken for a request."""
    seen: list[str] = []

    def handle(wire: Wire, asked: Message) -> None:
        seen.append(asked.target)
        echo(wire, asked)

    with ScriptedUpstream(serving(handle)) as upstream:
        pair.serve_http(HOST, upstream.upstream())
        limit(pair, body_bytes_max=10)
        for framing in ("length", "chunked"):
            visitor = visit()
            visitor.send(request("/first"))
            assert visitor.read_response().status == 200
            inner = request("/smuggled") * 3
            visitor.send(posted(inner, framing, 200), request("/behind"))
            too_large(visitor)
            visitor.assert_gone()
    assert seen == ["/first"] * 2


def test_visitor_that_sends_all_of_a_large_body_first_has_its_answer(pair: Pair, visit: Visit) -> None:
    with ScriptedUpstream(serving(echo)) as upstream:
        pair.serve_http(HOST, upstream.upstream())
        limit(pair, body_bytes_max=1_000_000)
        for raw in (request(method="POST", body=b"x" * 8_000_000),
                    request("/", CHUNKED, method="POST") + chunked(b"x" * 8_000_000, 100_000)):
            visitor = visit()
            visitor.send(raw)
            too_large(visitor)


def test_visitor_that_asks_before_it_sends_is_told_at_once(pair: Pair, visit: Visit) -> None:
    limit(pair, body_bytes_max=10)
    visitor = visit()
    visitor.send(request("/", "Content-Length: 11", "Expect: 100-continue", method="PUT"))
    too_large(visitor)


def test_upstream_of_a_body_that_becomes_too_large_sees_no_end_of_it(pair: Pair, visit: Visit) -> None:
    got: list[bytes] = []
    asked = threading.Event()

    def script(wire: Wire) -> None:
        wire.read_head()
        asked.set()
        try:
            got.append(wire.read_chunked())
        except Ended as ended:
            got.append(b"cut after " + ended.got[:4])
            raise

    with ScriptedUpstream(script) as upstream:
        pair.serve_http(HOST, upstream.upstream())
        limit(pair, body_bytes_max=10)
        visitor = visit()
        visitor.send(request("/", CHUNKED, method="POST"), b"5\r\nhello\r\n")
        assert asked.wait(10)
        visitor.send(b"6\r\nworld!\r\n0\r\n\r\n")
        too_large(visitor)
        eventually(lambda: got)
    assert got[0].startswith(b"cut after")


def test_bodies_that_h11_writes_are_counted_as_h11_counts_them(pair: Pair, visit: Visit) -> None:
    with ScriptedUpstream(serving(echo)) as upstream:
        pair.serve_http(HOST, upstream.upstream())
        limit(pair, body_bytes_max=300)
        for pieces in ([b"a" * 300], [b"b" * 100] * 3, [b"c"] * 300, [b"d" * 301], [b"e" * 100] * 4, [b"f"] * 301):
            for fields in ([("Transfer-Encoding", "chunked")], [("Content-Length", str(sum(map(len, pieces))))]):
                writer = h11.Connection(h11.CLIENT)
                raw = writer.send(h11.Request(method="POST", target="/", headers=[("Host", HOST), *fields])) or b""
                raw += b"".join(writer.send(h11.Data(data=piece)) or b"" for piece in pieces)
                raw += writer.send(h11.EndOfMessage()) or b""
                visitor = visit()
                visitor.send(raw)
                body = b"".join(pieces)
                if len(body) > 300:
                    too_large(visitor)
                else:
                    assert visitor.read_response().body == body


def test_change_of_the_limit_counts_for_the_next_request_of_an_open_conn(pair: Pair, visit: Visit) -> None:
    with ScriptedUpstream(serving(echo)) as upstream:
        pair.serve_http(HOST, upstream.upstream())
        visitor = visit()
        visitor.send(posted(b"x" * 100, "length"))
        assert visitor.read_response().status == 200
        visitor.send(request("/", CHUNKED, method="POST"), b"32\r\n" + b"y" * 50 + b"\r\n")
        eventually(lambda: pair.server.stats()["requests_total"] == 2)      # under way
        limit(pair, body_bytes_max=60)
        visitor.send(b"32\r\n" + b"y" * 50 + b"\r\n0\r\n\r\n")
        assert visitor.read_response().body == b"y" * 100
        visitor.send(posted(b"x" * 61, "length"))
        too_large(visitor)
        limit(pair)
        visitor = visit()
        visitor.send(posted(b"x" * 61, "length"))
        assert visitor.read_response().status == 200


def test_limit_is_of_its_host_alone(pair: Pair, visit: Visit) -> None:
    with ScriptedUpstream(serving(echo)) as upstream:
        pair.serve_http(HOST, upstream.upstream())
        pair.serve_http("b.tun.test", upstream.upstream())
        limit(pair, body_bytes_max=10)
        visitor = visit()
        visitor.send(request(host="b.tun.test", method="POST", body=b"x" * 100))
        assert visitor.read_response().body == b"x" * 100
        visitor.send(request(method="POST", body=b"x" * 11))
        too_large(visitor)


# --- lines


def test_lines_by_a_small_limit(pair: Pair, visit: Visit) -> None:
    with ScriptedUpstream(answering(response())) as upstream:
        pair.serve_http(HOST, upstream.upstream())
        limit(pair, line_bytes_max=300)
        field = "X-Long: " + "v" * (300 - 10)
        target = "/" + "t" * (300 - 16)
        visitor = visit()
        visitor.send(request(target, field))
        assert visitor.read_response().status == 200
        visitor.send(request("/", field + "v"))
        refused(visitor, 431, "SPK-HEAD-TOO-LARGE")
        visitor = visit()
        visitor.send(request(target + "t"))
        refused(visitor, 414, "SPK-TARGET-TOO-LONG")


def test_lines_by_a_large_limit_which_is_no_other_hosts(pair: Pair, visit: Visit) -> None:
    seen: list[int] = []

    def handle(wire: Wire, asked: Message) -> None:
        seen.append(max(len(asked.target), *(len(value) for _, value in asked.fields)))
        wire.send(response())

    with ScriptedUpstream(serving(handle)) as upstream:
        pair.serve_http(HOST, upstream.upstream())
        pair.serve_http("b.tun.test", upstream.upstream())
        limit(pair, line_bytes_max=20_000)
        visitor = visit()
        visitor.send(request("/", "Cookie: " + "c" * 19_980))
        assert visitor.read_response().status == 200
        visitor.send(request("/" + "t" * 19_000))
        assert visitor.read_response().status == 200
        visitor.send(request("/", "Cookie: " + "c" * 20_000))
        refused(visitor, 431, "SPK-HEAD-TOO-LARGE")
        for host in ("b.tun.test", "unknown.tun.test"):
            visitor = visit()
            visitor.send(request("/", "Cookie: " + "c" * 9000, host=host))
            refused(visitor, 431, "SPK-HEAD-TOO-LARGE")
            visitor = visit()
            visitor.send(request("/" + "t" * 9000, host=host))
            refused(visitor, 414, "SPK-TARGET-TOO-LONG")
    assert seen == [19_980, 19_001]


@pytest.mark.parametrize("step_bytes", [1, 7, 100])
def test_long_line_is_scanned_the_same_in_steps(step_bytes: int) -> None:
    raw = request("/", "Cookie: " + "c" * 12_000)
    ends = []
    for most in (12_000, 12_010, 32_768):
        resume, result = 0, 0
        for there in range(step_bytes, len(raw) + step_bytes, step_bytes):
            result, resume = http1.head_end(raw[:there], resume, most)
            if result:
                break
        ends.append(result)
    assert ends == [RC_TOO_LARGE, len(raw), len(raw)]
    assert http1.parse_request(raw, 12_009) == RC_TOO_LARGE
    assert http1.parse_request(request("/" + "t" * 400), 300) == RC_TARGET


# --- silence


def test_upstream_that_is_silent_for_longer_than_its_rule_is_504(pair: Pair, visit: Visit) -> None:
    asked = threading.Event()

    def script(wire: Wire) -> None:
        wire.read_head()
        asked.set()
        wire.read_to_end()

    with ScriptedUpstream(script) as upstream:
        place = upstream.upstream()
        pair.serve_http(HOST, place)
        limit(pair, silence_s=0.2)
        visitor = visit()
        visitor.send(request())
        answer = visitor.read_response()
        assert (answer.status, answer.code) == (504, "SPK-UPSTREAM-TIMEOUT")
        assert asked.is_set()
        eventually(lambda: FAULT_CODES[place.outcomes()[0]] == "SPK-UPSTREAM-TIMEOUT")


def test_upstream_that_says_something_in_time_is_never_too_slow(pair: Pair, visit: Visit) -> None:
    def script(wire: Wire) -> None:
        wire.read_head()
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n")
        wire.send_in_parts([b"x"] * 20, pause_s=0.05)

    with ScriptedUpstream(script) as upstream:
        pair.serve_http(HOST, upstream.upstream())
        limit(pair, silence_s=0.5)
        visitor = visit()
        visitor.send(request())
        assert visitor.read_response().body == b"x" * 20


def test_response_that_stops_is_cut(pair: Pair, visit: Visit) -> None:
    def script(wire: Wire) -> None:
        wire.read_head()
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nhalf")
        wire.read_to_end()

    with ScriptedUpstream(script) as upstream:
        pair.serve_http(HOST, upstream.upstream())
        limit(pair, silence_s=0.2)
        visitor = visit()
        visitor.send(request())
        with pytest.raises(Ended) as ended:
            visitor.read_response()
        assert ended.value.got.endswith(b"half")


def test_visitor_that_reads_slowly_is_no_silent_upstream(pair: Pair, visit: Visit) -> None:
    body = b"x" * 30_000_000
    with ScriptedUpstream(answering(response(body))) as upstream:
        pair.serve_http(HOST, upstream.upstream())
        limit(pair, silence_s=0.2)
        visitor = visit()
        visitor.send(request())
        before = 0

        def stands_still() -> bool:
            nonlocal before
            carried = pair.server.stats()["bytes_out"]
            before, same = carried, carried == before
            return same and carried > 0

        for _ in range(3):
            until = time.monotonic() + 0.5              # longer than the upstream may be silent
            eventually(lambda until=until: stands_still() and time.monotonic() > until)
            visitor.fill()
        assert visitor.read_response().body == body


def test_upload_that_pauses_while_the_response_runs_is_no_silent_upstream(pair: Pair, visit: Visit) -> None:
    begun = threading.Event()

    def script(wire: Wire) -> None:
        wire.read_head()
        wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
        begun.set()
        wire.read_chunked()
        wire.send(b"0\r\n\r\n")

    with ScriptedUpstream(script) as upstream:
        pair.serve_http(HOST, upstream.upstream())
        limit(pair, silence_s=0.2)
        visitor = visit()
        visitor.send(request("/", CHUNKED, method="POST"), b"1\r\nx\r\n")
        assert visitor.read_until(b"1\r\na\r\n")
        until = time.monotonic() + 0.6
        eventually(lambda: time.monotonic() > until)
        visitor.send(b"0\r\n\r\n")
        assert visitor.read_until(b"0\r\n\r\n") == b"0\r\n\r\n"


# --- peers of UDP


@pytest.mark.parametrize("patient", [("server", "client"), ("server",), ("client",)])
def test_udp_peer_stays_as_long_as_both_ends_rules_let_it(patient: tuple[str, ...]) -> None:
    """Both know the rule; one that does not, of an earlier version, ends the flow by its default."""
    with engine_pair(udp_idle_s=0.3) as pair, udp_echo() as upstream, udp_socket() as visitor:
        place = Upstream(addresses=[upstream.getsockname()])
        port = pair.serve_tcp("game", place, ListenerKind.UDP)

        def rule(limits: Limits) -> None:
            if "server" in patient:
                site = Site(tunnels=(pair.server_tunnel,), policy=Policy(limits=limits))
                pair.server.set_route(RouteKind.UDP, port, site)
            if "client" in patient:
                pair.client.set_route(RouteKind.UDP, port, Site(upstream=place, policy=Policy(limits=limits)))
            pair.publish()

        rule(Limits(udp_idle_s=2.0))
        visitor.sendto(b"one", ("127.0.0.1", port))
        assert visitor.recv(100) == b"one"
        began = time.monotonic()
        eventually(lambda: pair.server.stats()["streams_open"] == 0 or time.monotonic() > began + 1.2)
        assert pair.server.stats()["streams_open"] == (len(patient) == 2)
        rule(Limits())                                  # counts for the flow that is open
        eventually(lambda: pair.server.stats()["streams_open"] == 0)
        visitor.sendto(b"two", ("127.0.0.1", port))
        assert visitor.recv(100) == b"two"


def test_limits_out_of_bounds_are_refused(pair: Pair) -> None:
    for limits in (Limits(silence_s=0.01), Limits(udp_idle_s=1e9), Limits(line_bytes_max=32769), Limits(silence_s=-1)):
        with pytest.raises(EngineError):
            site = Site(tunnels=(pair.server_tunnel,), policy=Policy(limits=limits))
            pair.server.set_route(RouteKind.HTTP, HOST, site)
