"""What no honest visitor sends: 400 (or 431, 501) and close, nothing of it reaches an upstream, nobody else notices."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest

from tests.support.engines import Pair, eventually
from tests.support.http_wire import Ended, ScriptedUpstream, Wire, answering, request, response, serving

Visit = Callable[[], Wire]
HOST = b"Host: a.tun.test\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a.tun.test\r\n\r\n"


def post(*lines: bytes, body: bytes = b"") -> bytes:
    return b"POST / HTTP/1.1\r\n" + HOST + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body


VECTORS: dict[str, bytes] = {
    # lengths
    "length and chunked": post(b"Content-Length: 6", b"Transfer-Encoding: chunked", body=b"0\r\n\r\nX"),
    "chunked and length": post(b"Transfer-Encoding: chunked", b"Content-Length: 6", body=b"0\r\n\r\nX"),
    "two lengths": post(b"Content-Length: 3", b"Content-Length: 0", body=b"abc"),
    "two equal lengths": post(b"Content-Length: 3", b"Content-Length: 3", body=b"abc"),
    "listed lengths": post(b"Content-Length: 3, 3", body=b"abc"),
    "signed length": post(b"Content-Length: +3", body=b"abc"),
    "negative length": post(b"Content-Length: -3", body=b"abc"),
    "hexadecimal length": post(b"Content-Length: 0x3", body=b"abc"),
    "leading zero in length": post(b"Content-Length: 03", body=b"abc"),
    "empty length": post(b"Content-Length:", body=b""),
    "blank inside length": post(b"Content-Length: 1 0", body=b"0123456789"),
    "length beyond 2^63": post(b"Content-Length: 9223372036854775808"),
    "length beyond 2^64": post(b"Content-Length: 18446744073709551619", body=b"abc"),
    "length with a vertical tab": post(b"Content-Length: \x0b3", body=b"abc"),
    "length in an underscore twin": b"",
    # codings
    "coding obfuscated by a tab": post(b"Transfer-Encoding:\tchunked, identity", body=b"0\r\n\r\n"),
    "coding xchunked": post(b"Transfer-Encoding: xchunked", body=b"0\r\n\r\n"),
    "coding quoted": post(b'Transfer-Encoding: "chunked"', body=b"0\r\n\r\n"),
    "coding with a parameter": post(b"Transfer-Encoding: chunked;q=1", body=b"0\r\n\r\n"),
    "coding list": post(b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"),
    "coding chunked first": post(b"Transfer-Encoding: chunked, gzip", body=b"0\r\n\r\n"),
    "coding twice": post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    "coding twice, one unknown": post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: x", body=b"0\r\n\r\n"),
    "coding identity": post(b"Transfer-Encoding: identity", b"Content-Length: 3", body=b"abc"),
    "coding empty": post(b"Transfer-Encoding:", b"Content-Length: 3", body=b"abc"),
    "coding in HTTP/1.0": b"POST / HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "coding nominated": post(b"Connection: Transfer-Encoding", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    "length nominated": post(b"Connection: Content-Length", b"Content-Length: 3", body=b"abc"),
    "host nominated": post(b"Connection: Host", body=b""),
    # lines
    "folded line": post(b"X: 1", b" Transfer-Encoding: chunked", b"Content-Length: 3", body=b"abc"),
    "folded coding": post(b"Transfer-Encoding:", b" chunked", body=b"0\r\n\r\n"),
    "bare LF": b"POST / HTTP/1.1\r\n" + HOST + b"X: 1\nContent-Length: 3\r\n\r\nabc",
    "bare LF ends the head": b"GET / HTTP/1.1\r\n" + HOST + b"\n" + SMUGGLED,
    "bare CR": b"GET / HTTP/1.1\r\n" + HOST + b"X: 1\rContent-Length: 3\r\n\r\n",
    "NUL in a value": b"GET / HTTP/1.1\r\n" + HOST + b"X: a\x00b\r\n\r\n",
    "NUL in a name": b"GET / HTTP/1.1\r\n" + HOST + b"X\x00: ab\r\n\r\n",
    "space before the colon": post(b"Content-Length : 3", body=b"abc"),
    "tab before the colon": post(b"Transfer-Encoding\t: chunked", body=b"0\r\n\r\n"),
    "empty name": post(b": 3"),
    "leading space": b"GET / HTTP/1.1\r\n " + HOST + b"\r\n",
    "no colon": post(b"Content-Length 3"),
    "non-ASCII name": post("Contént-Length: 3".encode(), body=b"abc"),
    # request lines
    "HTTP/0.9": b"GET /\r\n\r\n",
    "two spaces": b"GET  / HTTP/1.1\r\n" + HOST + b"\r\n",
    "tab for a space": b"GET\t/ HTTP/1.1\r\n" + HOST + b"\r\n",
    "space in the target": b"GET /a b HTTP/1.1\r\n" + HOST + b"\r\n",
    "fragment in the target": b"GET /a#b HTTP/1.1\r\n" + HOST + b"\r\n",
    "non-ASCII target": b"GET /\xe9 HTTP/1.1\r\n" + HOST + b"\r\n",
    "no slash": b"GET path HTTP/1.1\r\n" + HOST + b"\r\n",
    "lower-case protocol": b"GET / http/1.1\r\n" + HOST + b"\r\n",
    "version 1.10": b"GET / HTTP/1.10\r\n" + HOST + b"\r\n",
    "star with GET": b"GET * HTTP/1.1\r\n" + HOST + b"\r\n",
    # hosts
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\n" + HOST + b"Host: b.tun.test\r\n\r\n",
    "two equal hosts": b"GET / HTTP/1.1\r\n" + HOST + HOST + b"\r\n",
    "userinfo": b"GET / HTTP/1.1\r\nHost: b.tun.test@a.tun.test\r\n\r\n",
    "userinfo in the target": b"GET http://u:p@a.tun.test/ HTTP/1.1\r\n" + HOST + b"\r\n",
    "absolute form disagrees": b"GET http://b.tun.test/ HTTP/1.1\r\n" + HOST + b"\r\n",
    "absolute form disagrees in the port": b"GET http://a.tun.test:81/ HTTP/1.1\r\n" + HOST + b"\r\n",
    "host with a slash": b"GET / HTTP/1.1\r\nHost: a.tun.test/x\r\n\r\n",
    "host with a comma": b"GET / HTTP/1.1\r\nHost: a.tun.test, b.tun.test\r\n\r\n",
    "host with a bad port": b"GET / HTTP/1.1\r\nHost: a.tun.test:8x\r\n\r\n",
}
VECTORS["length in an underscore twin"] = post(b"Content-Length: 3", b"Content-Length\xe2\x80\x8b: 0", body=b"abc")

NOT_DONE = {VECTORS["coding xchunked"], VECTORS["coding list"]}

BROKEN_CHUNKS = {
    "empty extension": b"5;\r\nabcde\r\n0\r\n\r\n",
    "extension with a bracket": b"5;bad[=x\r\nabcde\r\n0\r\n\r\n",
    "extension with an open quote": b'5;a="x\r\nabcde\r\n0\r\n\r\n',
    "signed size": b"+5\r\nabcde\r\n0\r\n\r\n",
    "hexadecimal prefix": b"0x5\r\nabcde\r\n0\r\n\r\n",
    "blank before the size": b" 5\r\nabcde\r\n0\r\n\r\n",
    "blank behind the size": b"5 \r\nabcde\r\n0\r\n\r\n",
    "no size": b"\r\nabcde\r\n0\r\n\r\n",
    "size ended by LF": b"5\nabcde\r\n0\r\n\r\n",
    "size ended by CR": b"5\rabcde\r\n0\r\n\r\n",
    "data ended by LF": b"5\r\nabcde\n0\r\n\r\n",
    "data too long": b"5\r\nabcdef\r\n0\r\n\r\n",
    "size beyond 2^63": b"8000000000000000\r\nabc",
    "size beyond 2^64": b"10000000000000005\r\nabcde\r\n0\r\n\r\n",
    "extension with a NUL": b"5;a=\x00\r\nabcde\r\n0\r\n\r\n",
    "extension with a LF": b"5;a=\nabcde\r\n0\r\n\r\n",
    "trailer without a colon": b"0\r\nContent-Length 5\r\n\r\n",
    "folded trailer": b"0\r\nX: 1\r\n folded\r\n\r\n",
    "trailer with a bare LF": b"0\r\nX: 1\nY: 2\r\n\r\n",
    "end without CRLF": b"0\r\nGET / HTTP/1.1\r\n\r\n",
    "endless extensions": b"".join(b"1;" + b"e" * 4000 + b"\r\nx\r\n" for _ in range(20)) + b"0\r\n\r\n",
    "endless trailers": b"0\r\n" + b"".join(b"X-%d: %s\r\n" % (i, b"t" * 4000) for i in range(20)) + b"\r\n",
}




def read_refusal(visitor: Wire, *statuses: int) -> None:
    answer = visitor.read_response()
    assert answer.status in (statuses or (400,)), answer
    assert answer.one("Connection") == "close" and answer.code
    visitor.assert_closed()


@pytest.mark.parametrize("vector", VECTORS.values(), ids=VECTORS.keys())
@pytest.mark.parametrize("behind", [b"", request("/first")], ids=["alone", "behind another"])
def test_smuggling_vector_is_400_and_close(pair: Pair, visit: Visit, vector: bytes, behind: bytes) -> None:
    targets: list[str] = []

    def handle(wire: Wire, asked: object) -> None:
        targets.append(asked.target)
        wire.send(response())

    with ScriptedUpstream(serving(handle)) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        pair.serve_http("b.tun.test", upstream.upstream())
        other = visit()
        other.send(request("/other"))
        other.read_response()
        visitor = visit()
        visitor.send(behind + vector + SMUGGLED)
        if behind:
            assert visitor.read_response().body == b"hello"
        read_refusal(visitor, 501 if vector in NOT_DONE else 400)
        other.send(request("/other"))
        assert other.read_response().body == b"hello"
        assert targets == ["/other", *(["/first"] if behind else []), "/other"]


@pytest.mark.parametrize("chunks", BROKEN_CHUNKS.values(), ids=BROKEN_CHUNKS.keys())
def test_broken_chunk_is_400_and_close_and_aborts_upstream(pair: Pair, visit: Visit, chunks: bytes) -> None:
    whole: list[bytes] = []

    def script(wire: Wire) -> None:
        wire.read_head()
        whole.append(wire.read_chunked())

    with ScriptedUpstream(script) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        visitor.send(request("/", "Transfer-Encoding: chunked", method="POST") + chunks + SMUGGLED)
        read_refusal(visitor)
        eventually(lambda: pair.client.stats()["upstreams_open"] == 0)
    assert whole == []


@pytest.mark.parametrize("step", [1, 7])
@pytest.mark.parametrize("name", ["length and chunked", "bare LF ends the head", "coding xchunked", "two hosts"])
def test_smuggling_vector_in_crumbs_is_400_too(pair: Pair, visit: Visit, name: str, step: int) -> None:
    vector = VECTORS[name]
    visitor = visit()
    with contextlib.suppress(ConnectionError):          # refused before its end was sent
        visitor.send_in_parts([vector[i : i + step] for i in range(0, len(vector), step)], pause_s=0.0005)
    read_refusal(visitor, 501 if vector in NOT_DONE else 400)


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 500,
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"\x00" * 100,
        b"\xff" * 100,
        b"\r\n\r\n\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\n\n",
        b"*1\r\n$4\r\nPING\r\n\r\n",
    ],
)
def test_garbage_on_the_http_port_is_refused_and_nobody_else_notices(pair: Pair, visit: Visit, garbage: bytes) -> None:
    with ScriptedUpstream(answering(response())) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        other = visit()
        for _ in range(5):
            visitor = visit()
            visitor.send(garbage)
            read_refusal(visitor, 505 if b"HTTP/2.0" in garbage else 400)
            other.send(request())
            assert other.read_response().body == b"hello"


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET / HTTP/1.1\r\n" + HOST + b"".join(b"X-%d: 1\r\n" % i for i in range(100)) + b"\r\n", 431),
        (b"GET /" + b"a" * 8200 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 414),
        (b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"y" * 8200 + b"\r\n\r\n", 431),
        (
            b"GET / HTTP/1.1\r\n" + HOST + b"".join(b"X-%d: %s\r\n" % (i, b"y" * 8000) for i in range(5)) + b"\r\n",
            431,
        ),
        (b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"y" * 100_000, 431),
        (b"GET /" + b"a" * 100_000, 414),
        (b"A" * 100_000, 501),
        (b"A" * 65 + b" / HTTP/1.1\r\n" + HOST + b"\r\n", 501),
    ],
    ids=["fields", "target", "line", "head", "endless line", "endless target", "endless method", "long method"],
)
def test_oversized_head_is_refused_by_what_is_too_long(pair: Pair, visit: Visit, head: bytes, status: int) -> None:
    visitor = visit()
    visitor.send(head)
    read_refusal(visitor, status)
    assert pair.server.stats()["streams_total"] == 0


@pytest.mark.parametrize("method", ["CONNECT"])
def test_connect_is_501_and_close(pair: Pair, visit: Visit, method: str) -> None:
    visitor = visit()
    visitor.send(b"CONNECT a.tun.test:443 HTTP/1.1\r\n" + HOST + b"\r\n" + b"\x16\x03\x01")
    read_refusal(visitor, 501)


@pytest.mark.parametrize("version", ["2.0", "0.9", "3.0"])
def test_another_major_version_is_505_and_close(pair: Pair, visit: Visit, version: str) -> None:
    visitor = visit()
    visitor.send(request(version=version))
    answer = visitor.read_response()
    assert (answer.status, answer.code) == (505, "SPK-HTTP-VERSION")
    visitor.assert_closed()


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_refusal_of_a_head_has_no_body_for_head(pair: Pair, visit: Visit, method: str) -> None:
    visitor = visit()
    visitor.send(f"{method} / HTTP/1.1\r\nbad line\r\n\r\n".encode())
    answer = visitor.read_response(method)
    assert answer.status == 400 and int(answer.one("Content-Length")) > 0
    assert bool(answer.body) is (method == "GET")
    visitor.assert_closed()


@pytest.mark.parametrize("empty_line_count", [1, 2, 3])
@pytest.mark.parametrize("step", [1, 2, 3, 1000])
def test_empty_lines_before_a_request_are_counted_however_they_arrive(
    pair: Pair, visit: Visit, empty_line_count: int, step: int
) -> None:
    with ScriptedUpstream(answering(response())) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        for _ in range(2):                              # counted anew for each request
            whole = b"\r\n" * empty_line_count + request()
            with contextlib.suppress(ConnectionError):  # refused before its end was sent
                visitor.send_in_parts([whole[i : i + step] for i in range(0, len(whole), step)])
            if empty_line_count > 1:
                read_refusal(visitor)
                break
            assert visitor.read_response().body == b"hello"


def test_empty_lines_between_requests_are_skipped_once(pair: Pair, visit: Visit) -> None:
    with ScriptedUpstream(answering(response())) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        visitor.send(b"\r\n" + request() + b"\r\n" + request() + b"\r\n\r\n" + request())
        for _ in range(2):
            assert visitor.read_response().body == b"hello"
        read_refusal(visitor)


def test_bytes_in_flight_behind_a_refusal_do_not_destroy_it(pair: Pair, visit: Visit) -> None:
    """Closing with unread input would reset the conn and the visitor would never see why."""
    for _ in range(20):
        visitor = visit()
        visitor.send(b"GET / HTTP/1.1\r\nbad line\r\n\r\n" + b"z" * 200_000)
        read_refusal(visitor)


def test_many_refusals_leave_nothing_behind(pair: Pair, visit: Visit) -> None:
    with ScriptedUpstream(answering(response())) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        for i in range(200):
            with visit() as visitor:
                begun = request("/", "Transfer-Encoding: chunked", method="POST") if i % 2 else b""
                visitor.send(begun, b"!bad\r\n\r\n")
                try:
                    assert visitor.read_response().status == 400
                except Ended as ended:
                    assert ended.reset
        pair.assert_idle()
