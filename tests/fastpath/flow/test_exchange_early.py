"""Answers that come before the request has: the visitor goes on sending, and gets its answer all the same."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from spokes._fastpath.engine import Limits, Policy, RouteKind, Site, Upstream
from tests.support.engines import Pair, eventually
from tests.support.http_wire import Message, ScriptedUpstream, Wire, request, response
from tests.support.visitors import visitors

Visit = Callable[[], Wire]

LENGTH = "Content-Length: 300000000"
CHUNKED = "Transfer-Encoding: chunked"
BOUND_BYTES = 64 << 20


@pytest.fixture(params=["tcp", "tls"])
def visit(pair: Pair, request: pytest.FixtureRequest) -> Iterator[Visit]:
    with visitors(pair, "a.tun.test", by_tls=request.param == "tls") as connect:
        yield connect


def parts(framing: str, count: int, size: int) -> list[bytes]:
    data = b"x" * size
    return [b"%x\r\n%s\r\n" % (size, data) if framing == CHUNKED else data] * count


def refusing(wire: Wire) -> None:
    """Answers when it has seen the head, and closes with the rest unread: its kernel resets the conn."""
    wire.read_head()
    wire.send(response(b"too large", "413 Content Too Large"))


def answer_of(visitor: Wire, status: int, code: str) -> Message:
    answer = visitor.read_response()
    assert (answer.status, answer.code) == (status, code)
    return answer


@pytest.fixture
def asked_of(pair: Pair):
    """(host, status, code): who answers early."""
    with ScriptedUpstream(refusing) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        pair.serve_http("dead.tun.test", Upstream(addresses=[]))
        yield {
            "upstream": ("a.tun.test", 413, ""),
            "client": ("dead.tun.test", 502, "SPK-UPSTREAM-NAME"),
            "server": ("unknown.tun.test", 404, "SPK-UNKNOWN-HOST"),
        }


@pytest.mark.parametrize("who", ["upstream", "client", "server"])
@pytest.mark.parametrize("framing", [LENGTH, CHUNKED], ids=["length", "chunked"])
def test_visitor_that_sends_all_before_it_looks_has_its_answer(
    visit: Visit, asked_of: dict[str, tuple[str, int, str]], who: str, framing: str
) -> None:
    host, status, code = asked_of[who]
    for _ in range(3):
        visitor = visit()
        visitor.send(request("/", framing, host=host, method="POST"))
        for part in parts(framing, 100, 300_000):
            visitor.send(part)
        answer_of(visitor, status, code)
        visitor.close()


@pytest.mark.slow
@pytest.mark.parametrize("framing", [LENGTH, CHUNKED], ids=["length", "chunked"])
def test_visitor_that_sends_slowly_for_longer_than_a_moment_has_its_answer(
    visit: Visit, asked_of: dict[str, tuple[str, int, str]], framing: str
) -> None:
    visitors = []
    for host, status, code in asked_of.values():
        visitor = visit()
        visitor.send(request("/", framing, host=host, method="PUT"))
        visitors.append((visitor, status, code))
    until = time.monotonic() + 7

    def send_on() -> bool:
        for visitor, _, _ in visitors:
            visitor.send(*parts(framing, 1, 100))
        return time.monotonic() > until

    eventually(send_on, within_s=20)
    for visitor, status, code in visitors:
        answer_of(visitor, status, code)


@pytest.mark.slow
def test_visitor_that_pauses_for_longer_than_a_moment_between_pieces_has_its_answer(
    pair: Pair, visit: Visit, asked_of: dict[str, tuple[str, int, str]]
) -> None:
    """Its deadline is one for the whole, not one of silence: pieces of an upload come as its own source gives them."""
    policy = Policy(limits=Limits(body_bytes_max=1000))
    pair.server.set_route(RouteKind.HTTP, "b.tun.test", Site(tunnels=(pair.server_tunnel,), policy=policy))
    pair.publish()
    visitors = []
    for host, status, code in (*asked_of.values(), ("b.tun.test", 413, "SPK-BODY-TOO-LARGE")):
        for framing in (LENGTH, CHUNKED):
            visitor = visit()
            visitor.send(request("/", framing, host=host, method="PUT"), *parts(framing, 11, 100))
            visitors.append((visitor, framing, status, code))
    for _ in range(2):
        until = time.monotonic() + 3.5
        eventually(lambda until=until: time.monotonic() > until)
        for visitor, framing, _, _ in visitors:
            visitor.send(*parts(framing, 1, 100))
    for visitor, _, status, code in visitors:
        answer_of(visitor, status, code)


def test_visitor_whose_request_has_ended_is_not_waited_for_so_long(pair: Pair, visit: Visit) -> None:
    visitor = visit()
    visitor.send(request("/", "Connection: close", host="unknown.tun.test"))
    answer_of(visitor, 404, "SPK-UNKNOWN-HOST")
    eventually(lambda: pair.server.stats()["visitors_open"] == 0, within_s=10)


@pytest.mark.parametrize("who", ["upstream", "client", "server"])
def test_visitor_that_awaits_100_continue_has_the_answer_at_once(
    visit: Visit, asked_of: dict[str, tuple[str, int, str]], who: str
) -> None:
    host, status, code = asked_of[who]
    visitor = visit()
    visitor.send(request("/", LENGTH, "Expect: 100-continue", host=host, method="PUT"))
    assert answer_of(visitor, status, code).one("Connection") == "close"


def test_visitor_that_never_ends_is_cut_at_the_bound(visit: Visit) -> None:
    visitor = visit()
    visitor.send(request("/", CHUNKED, host="unknown.tun.test", method="POST"))
    sent = 0
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while sent < 16 * BOUND_BYTES:
            visitor.send(*parts(CHUNKED, 1, 1 << 20))
            sent += 1 << 20
    assert BOUND_BYTES * 15 // 16 <= sent < 4 * BOUND_BYTES     # on the wire, where TLS adds some; by whole pieces


# What its kernel has sent by then; the rest of a longer answer is lost there, with its RST. A first window is 32 KiB.
@pytest.mark.parametrize("answer_bytes", [10, 20_000])
def test_upstream_that_closes_on_what_it_has_not_read_is_read_to_its_end(
    pair: Pair, visit: Visit, answer_bytes: int
) -> None:
    """Our writes fail while its answer waits in our kernel; the visitor's bytes are dropped from then on."""

    def script(wire: Wire) -> None:
        wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        wire.read_head()
        wire.send(response(b"a" * answer_bytes, "413 Content Too Large"))

    with ScriptedUpstream(script) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        for _ in range(10):
            visitor = visit()
            sending = threading.Thread(target=visitor.send, args=(request(method="POST", body=b"x" * 3_000_000),))
            sending.start()
            answer = answer_of(visitor, 413, "")
            assert answer.body == b"a" * answer_bytes
            sending.join(10)
            visitor.close()
        eventually(lambda: pair.client.stats()["upstreams_open"] == 0)
