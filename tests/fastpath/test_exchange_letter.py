"""What RFC 9110 and 9112 ask of a proxy beyond framing, seen from both ends: versions, dates, hops that are counted."""

from __future__ import annotations

import email.utils
import time
from collections.abc import Callable

import pytest

from spokes._fastpath.engine import RouteKind
from tests.support.engines import Pair
from tests.support.http_wire import Message, ScriptedUpstream, Wire, answering, request, response, serving

Visit = Callable[[], Wire]


def assert_is_now(date: str) -> None:
    assert date.endswith(" GMT")
    assert abs(email.utils.parsedate_to_datetime(date).timestamp() - time.time()) < 60


# --- Date


@pytest.mark.parametrize("target", [request(), request(host="unknown.test"), b"bad\r\n\r\n"])
def test_page_of_ours_has_one_date(pair: Pair, visit: Visit, target: bytes) -> None:
    pair.server.set_page_route(RouteKind.HTTP, "a.tun.test", "SPK-WELCOME")
    pair.publish()
    visitor = visit()
    visitor.send(target)
    assert_is_now(visitor.read_response().one("Date"))


def test_response_without_date_gets_one_and_another_keeps_its_own(pair: Pair, visit: Visit) -> None:
    old = "Sun, 06 Nov 1994 08:49:37 GMT"
    answers = answering(response(b"a"), response(b"b", "200 OK", f"Date: {old}"))
    with ScriptedUpstream(answers) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        visitor.send(request())
        assert_is_now(visitor.read_response().one("Date"))
        visitor.send(request())
        assert visitor.read_response().one("Date") == old


def test_interim_response_gets_no_date(pair: Pair, visit: Visit) -> None:
    with ScriptedUpstream(answering(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + response())) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        visitor.send(request())
        answer = visitor.read_response()
        assert answer.interims[0].fields == [("Link", "</a>")]


# --- versions and fields


def test_later_minor_versions_are_taken_as_http11_both_ways(pair: Pair, visit: Visit) -> None:
    seen: list[str] = []

    def handle(wire: Wire, asked: Message) -> None:
        seen.append(asked.start)
        wire.send(response().replace(b"HTTP/1.1", b"HTTP/1.7"))

    with ScriptedUpstream(serving(handle)) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        for _ in range(2):                              # and the conn goes on, as with HTTP/1.1
            visitor.send(request(version="1.2"))
            assert visitor.read_response().start == "HTTP/1.1 200 OK"
        assert seen == ["GET / HTTP/1.1"] * 2


def test_blanks_before_a_colon_of_a_response_are_taken_off(pair: Pair, visit: Visit) -> None:
    answer = b"HTTP/1.1 200 OK\r\nX-One : 1\r\nContent-Length\t : 5\r\nX-Two \t: 2\r\n\r\nhello"
    with ScriptedUpstream(answering(answer)) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        for _ in range(2):
            visitor.send(request())
            got = visitor.read_response()
            assert got.body == b"hello"
            assert [field for field in got.fields if field[0] != "Date"] == [
                ("X-One", "1"), ("Content-Length", "5"), ("X-Two", "2"),
            ]  # fmt: skip


@pytest.mark.parametrize("broken", [b"5;\r\nhello\r\n", b"5;bad[=x\r\nhello\r\n", b'5;a="x\r\nhello\r\n'])
def test_bad_chunk_extension_of_a_response_cuts_it_before_its_chunk(pair: Pair, visit: Visit, broken: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    with ScriptedUpstream(answering(head + b"2\r\nok\r\n" + broken + b"0\r\n\r\n")) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        visitor.send(request())
        with pytest.raises(Exception, match=r"reset|closed"):
            visitor.read_response()


# --- OPTIONS and TRACE


@pytest.mark.parametrize("target", ["*", "/x"])
def test_options_that_may_go_no_further_is_answered_here(pair: Pair, visit: Visit, target: str) -> None:
    asked: list[Message] = []

    def handle(wire: Wire, message: Message) -> None:
        asked.append(message)
        wire.send(response())

    with ScriptedUpstream(serving(handle)) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        visitor.send(request(target, "Max-Forwards: 0", method="OPTIONS"))
        answer = visitor.read_response()
        assert (answer.status, answer.body) == (200, b"")
        assert "OPTIONS" in answer.one("Allow")
        assert_is_now(answer.one("Date"))
        assert asked == []
        visitor.send(request(target, "Max-Forwards: 1", method="OPTIONS"))
        assert visitor.read_response().body == b"hello"
        assert (asked[0].target, asked[0].one("Max-Forwards")) == (target, "0")
        visitor.send(request("/", "Max-Forwards: 0"))   # means nothing for other methods
        assert visitor.read_response().body == b"hello"


def test_trace_that_may_go_no_further_is_sent_back_without_secrets(pair: Pair, visit: Visit) -> None:
    secrets = ["Cookie: a=1", "AUTHORIZATION: Basic x", "Proxy-Authorization: y"]
    sent = request("/x?y", "Cookie: a=1", "X-One: 1", *secrets, "Max-Forwards: 0", "Cookie: b", method="TRACE")
    visitor = visit()
    for _ in range(2):
        visitor.send(sent)
        answer = visitor.read_response()
        assert (answer.status, answer.one("Content-Type")) == (200, "message/http")
        assert answer.body == request("/x?y", "X-One: 1", "Max-Forwards: 0", method="TRACE")
    assert pair.server.stats()["streams_total"] == 0


def test_trace_with_hops_left_is_passed_on_with_one_less(pair: Pair, visit: Visit) -> None:
    with ScriptedUpstream(serving(lambda wire, asked: wire.send(response(asked.one("Max-Forwards").encode())))) as up:
        pair.serve_http("a.tun.test", up.upstream())
        visitor = visit()
        visitor.send(request("/", "Max-Forwards: 10", method="TRACE"))
        assert visitor.read_response().body == b"9"


def test_options_with_a_body_that_may_go_no_further_ends_the_conn(pair: Pair, visit: Visit) -> None:
    visitor = visit()
    visitor.send(request("/", "Max-Forwards: 0", "Content-Length: 10", method="OPTIONS") + b"01234")
    answer = visitor.read_response()
    assert (answer.status, answer.one("Connection")) == (200, "close")
    visitor.assert_closed()


# --- our own pages


@pytest.mark.parametrize(("method", "status"), [("GET", 200), ("HEAD", 200), ("POST", 405), ("TRACE", 405),
                                                ("get", 501), ("PROPFIND", 501)])
def test_welcome_page_is_for_reading(pair: Pair, visit: Visit, method: str, status: int) -> None:
    pair.server.set_page_route(RouteKind.HTTP, "tun.test", "SPK-WELCOME")
    pair.publish()
    visitor = visit()
    for _ in range(2):
        visitor.send(request(host="tun.test", method=method))
        answer = visitor.read_response(method)
        assert answer.status == status
        assert answer.one("Allow") == ("GET, HEAD" if status == 405 else "")
