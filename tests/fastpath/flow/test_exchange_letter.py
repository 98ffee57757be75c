"""What RFC 9110 and 9112 ask of a proxy beyond framing, seen from both ends: versions, dates, hops that are counted."""

from __future__ import annotations

import email.utils
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from spokes._fastpath.engine import FAULT_CODES, Engine, ListenerKind, Policy, RouteKind, Site, Upstream
from spokes.pages import hand_pages
from tests.support.engines import Pair, engine_pair, eventually
from tests.support.http_wire import Ended, Message, ScriptedUpstream, Wire, answering, request, response, serving
from tests.support.upstreams import connect

Visit = Callable[[], Wire]


def assert_is_now(date: str) -> None:
    assert date.endswith(" GMT")
    assert abs(email.utils.parsedate_to_datetime(date).timestamp() - time.time()) < 60


# --- Date


@pytest.mark.parametrize("target", [request(), request(host="unknown.test"), b"bad\r\n\r\n"])
def test_page_of_ours_has_one_date(pair: Pair, visit: Visit, target: bytes) -> None:
    pair.server.set_route(RouteKind.HTTP, "a.tun.test", Site(page="SPK-WELCOME"))
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


BROKEN_CHUNKS = {
    "blanks behind a size": b"2  \r\nok\r\n0\r\n\r\n",
    "a size with its base": b"0x2\r\nok\r\n0\r\n\r\n",
    "a size without CR": b"2\nok\r\n0\r\n\r\n",
    "no size": b"\r\nok\r\n0\r\n\r\n",
    "an extension without a name": b"2;\r\nok\r\n0\r\n\r\n",
    "too long for its size": b"2\r\nokay\r\n0\r\n\r\n",
    "the second one": b"2\r\nok\r\nxyz\r\n",
    "a trailer without a colon": b"2\r\nok\r\n0\r\nX\r\n\r\n",
}


@pytest.mark.parametrize("body", BROKEN_CHUNKS.values(), ids=BROKEN_CHUNKS)
def test_response_whose_chunks_are_broken_beside_its_head_is_answered_with_a_code(
    pair: Pair, visit: Visit, body: bytes
) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    with ScriptedUpstream(answering(head + body)) as upstream:
        place = upstream.upstream()
        pair.serve_http("a.tun.test", place)
        visitor = visit()
        for _ in range(2):
            visitor.send(request())
            answer = visitor.read_response()
            assert (answer.status, answer.code) == (502, "SPK-UPSTREAM-BODY")
        eventually(lambda: FAULT_CODES[place.outcomes()[0]] == "SPK-UPSTREAM-BODY")


def test_response_whose_chunks_break_later_is_cut_and_counted(pair: Pair, visit: Visit) -> None:
    come = threading.Event()

    def script(wire: Wire) -> None:
        wire.read_request()
        wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")
        assert come.wait(10)
        wire.send(b"2  \r\nok\r\n")
        wire.read_to_end()

    with ScriptedUpstream(script) as upstream:
        place = upstream.upstream()
        pair.serve_http("a.tun.test", place)
        visitor = visit()
        visitor.send(request())
        visitor.read_until(b"2\r\nok\r\n")
        come.set()
        visitor.assert_gone()
        eventually(lambda: FAULT_CODES[place.outcomes()[0]] == "SPK-UPSTREAM-BODY")


@pytest.mark.parametrize("step_bytes", [1, 1000])
def test_blanks_before_a_colon_of_a_responses_trailers_are_no_fault(
    pair: Pair, visit: Visit, step_bytes: int
) -> None:
    raw = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum : 1\r\nX-Two\t : 2\r\n\r\n"

    def handle(wire: Wire, asked: Message) -> None:
        wire.send_in_parts([raw[at:at + step_bytes] for at in range(0, len(raw), step_bytes)])

    with ScriptedUpstream(serving(handle)) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        for _ in range(2):
            visitor.send(request())
            assert visitor.read_response().body == b"ok"
        assert len(upstream.conns) == 1


def test_blanks_before_a_colon_of_a_requests_trailers_are_refused(pair: Pair, visit: Visit) -> None:
    with ScriptedUpstream(answering(response())) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        visitor.send(request("/", "Transfer-Encoding: chunked", method="POST"), b"0\r\nX-Sum : 1\r\n\r\n")
        assert visitor.read_response().code == "SPK-BAD-REQUEST"


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
    come = threading.Event()

    def script(wire: Wire) -> None:
        wire.read_request()
        wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")
        assert come.wait(10)
        wire.send(broken + b"0\r\n\r\n")
        wire.read_to_end()

    with ScriptedUpstream(script) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        visitor.send(request())
        visitor.read_until(b"2\r\nok\r\n")
        come.set()
        with pytest.raises(Ended) as ended:
            visitor.read_chunked()
        assert b"hello" not in ended.value.got


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
    pair.server.set_route(RouteKind.HTTP, "tun.test", Site(page="SPK-WELCOME"))
    pair.publish()
    visitor = visit()
    for _ in range(2):
        visitor.send(request(host="tun.test", method=method))
        answer = visitor.read_response(method)
        assert answer.status == status
        assert answer.one("Allow") == ("GET, HEAD" if status == 405 else "")


# --- Via and loops

VIA = b"spokes-0123456789abcdef"


@pytest.fixture
def marked() -> Iterator[Pair]:
    """A pair whose server has a name in Via."""
    with engine_pair(via=VIA) as joined:
        yield joined
        joined.assert_idle()


@pytest.mark.parametrize(("version", "received"), [("1.0", "1.0"), ("1.1", "1.1"), ("1.2", "1.1")])
def test_request_is_marked_once_with_the_version_it_came_in(marked: Pair, version: str, received: str) -> None:
    seen: list[list[str]] = []

    def handle(wire: Wire, asked: Message) -> None:
        seen.append(asked.all("Via"))
        wire.send(response())

    with ScriptedUpstream(serving(handle)) as upstream, Wire(connect(marked.ports["http"])) as visitor:
        marked.serve_http("a.tun.test", upstream.upstream())
        visitor.send(request("/", "Via: 1.1 before, 1.0 spokes-0", version=version))
        answer = visitor.read_response()
        assert answer.body == b"hello" and not answer.all("Via")
        assert seen == [["1.1 before, 1.0 spokes-0", f"{received} {VIA.decode()}"]]


@pytest.mark.parametrize(
    "via",
    ["1.1 {}", "1.0 other, HTTP/1.1 {}", "1.1\t{} (comment)", "1.1 a,1.1 {} ,1.1 b", "1.1 SPOKES-0123456789ABCDEF"],
)
def test_request_that_came_through_before_is_508(marked: Pair, via: str) -> None:
    with Wire(connect(marked.ports["http"])) as visitor:
        for fields in ([f"Via: {via}"], ["Via: 1.1 x", f"via: {via}", "Connection: via"]):
            visitor.send(request("/", *(field.format(VIA.decode()) for field in fields)))
            answer = visitor.read_response()
            assert (answer.status, answer.code) == (508, "SPK-LOOP")
    assert marked.server.stats()["loops_total"] == 2
    assert marked.server.stats()["streams_total"] == 0


@pytest.mark.parametrize("via", ["1.1 {}x", "1.1 x{}", "1.1 x ({})", "{}", "1.1 {}:80"])
def test_request_that_came_through_another_goes_on(marked: Pair, via: str) -> None:
    with ScriptedUpstream(answering(response())) as upstream, Wire(connect(marked.ports["http"])) as visitor:
        marked.serve_http("a.tun.test", upstream.upstream())
        visitor.send(request("/", f"Via: {via.format(VIA.decode())}"))
        assert visitor.read_response().body == b"hello"


def test_site_that_leads_to_its_own_edge_is_a_508_after_one_round() -> None:
    # The conn to the edge is kept for the next request, so the pair is not idle at the end.
    with engine_pair(via=VIA) as marked, Wire(connect(marked.ports["http"])) as visitor:
        marked.serve_http("a.tun.test", Upstream(addresses=[("127.0.0.1", marked.ports["http"])]))
        visitor.send(request())
        assert visitor.read_response().code == "SPK-LOOP"
        visitor.send(request("/", "Connection: Upgrade", "Upgrade: websocket"))
        assert visitor.read_response().code == "SPK-LOOP"
        assert marked.server.stats()["streams_total"] <= 2


# --- https alone


@pytest.mark.parametrize(
    ("target", "place"),
    [
        ("/", "/"),
        ("/a/b?c=d", "/a/b?c=d"),
        ("http://a.tun.test", "/"),
        ("http://a.tun.test?x", "/?x"),
        ("//evil.test/", "//evil.test/"),
    ],
)
@pytest.mark.parametrize(("port", "suffix"), [(443, ""), (8443, ":8443")])
def test_site_of_tls_alone_sends_plain_http_to_https(
    pair: Pair, visit: Visit, target: str, place: str, port: int, suffix: str
) -> None:
    site = Site(tunnels=(pair.server_tunnel,), policy=Policy(https_port=port))
    pair.server.set_route(RouteKind.HTTP, "a.tun.test", site)
    pair.publish()
    visitor = visit()
    for method in ("GET", "HEAD", "POST"):
        visitor.send(request(target, method=method))
        answer = visitor.read_response(method)
        assert (answer.status, answer.code) == (308, "SPK-HTTPS")
        assert answer.one("Location") == f"https://a.tun.test{suffix}{place}"


def test_options_of_the_server_of_a_site_of_tls_alone_is_sent_to_https(pair: Pair, visit: Visit) -> None:
    site = Site(tunnels=(pair.server_tunnel,), policy=Policy(https_port=443))
    pair.server.set_route(RouteKind.HTTP, "a.tun.test", site)
    pair.publish()
    visitor = visit()
    visitor.send(request("*", method="OPTIONS"))
    assert visitor.read_response().one("Location") == "https://a.tun.test/"


# --- refusals under /api/


@pytest.fixture
def administered(tmp_path: Path) -> Iterator[Pair]:
    """A server with an administration that is not there, and pages in JSON for its callers."""
    server = Engine(workers=1, memory_limit_bytes=64 << 20, accepting=True)
    pair = Pair(server, server)
    hand_pages(server)
    server.start()
    try:
        pair.listen("http", ListenerKind.HTTP)
        upstream = Upstream(unix_path=str(tmp_path / "none.sock"), fault_page="SPK-ADMIN-DOWN")
        server.set_route(RouteKind.HTTP, "tun.test", Site(upstream=upstream))
        server.set_route(RouteKind.HTTP, "a.tun.test", Site(page="SPK-OFFLINE"))
        server.publish()
        yield pair
    finally:
        server.stop()


API = b"POST /api/admin/v1.1/tunnel/list HTTP/1.1\r\n"
REFUSED = {
    "400": (API + b"Host: tun.test\r\nbad line\r\n\r\n", 400),
    "400 for want of a host": (API + b"\r\n", 400),
    "400 for a bad host": (API + b"Host: tun test\r\n\r\n", 400),
    "414": (b"GET /api/" + b"a" * 9000 + b" HTTP/1.1\r\nHost: tun.test\r\n\r\n", 414),
    "431": (API + b"Host: tun.test\r\nX: " + b"a" * 9000 + b"\r\n\r\n", 431),
    "501": (API + b"Host: TUN.test\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
    "505": (API.replace(b"1.1\r", b"2.0\r") + b"Host: tun.test\r\n\r\n", 505),
    "503": (API + b"Host: tun.test\r\n\r\n", 503),
    "behind a prefix": (b"GET /x/api/y HTTP/1.1\r\nhost:tun.test:80\r\n: bad\r\n\r\n", 400),
    "absolute": (b"GET http://tun.test/api/y HTTP/1.1\r\nHost: tun.test\r\n: bad\r\n\r\n", 400),
}


@pytest.mark.parametrize(("raw", "status"), REFUSED.values(), ids=REFUSED.keys())
def test_refusal_under_api_is_json(administered: Pair, raw: bytes, status: int) -> None:
    with Wire(connect(administered.ports["http"])) as visitor:
        visitor.send(raw)
        answer = visitor.read_response()
        assert (answer.status, answer.one("Content-Type")) == (status, "application/json")
        envelope = json.loads(answer.body)
        assert (envelope["status"], envelope["code"]) == (False, answer.code)


@pytest.mark.parametrize(
    "raw",
    [
        b"GET /other HTTP/1.1\r\nHost: tun.test\r\n: bad\r\n\r\n",
        b"GET /api/x HTTP/1.1\r\nHost: a.tun.test\r\n: bad\r\n\r\n",
        b"GET /api/x HTTP/1.1\r\nHost: a.tun.test\r\n\r\n",
        b"\x00/api/",
    ],
)
def test_refusal_elsewhere_is_a_page(administered: Pair, raw: bytes) -> None:
    with Wire(connect(administered.ports["http"])) as visitor:
        visitor.send(raw)
        assert visitor.read_response().one("Content-Type") == "text/html; charset=utf-8"
