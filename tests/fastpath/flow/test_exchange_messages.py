"""Whole messages through both engines: routing per request, framing in both directions, what is rewritten."""

from __future__ import annotations

import contextlib
import hashlib
import random
import socket
import threading
from collections.abc import Callable

import pytest

from tests.support.engines import Pair
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
from tests.support.threads import join_thread

Visit = Callable[[], Wire]
KEEPS = "Keep-Alive: timeout=60"    # without it a conn that was idle for 250 ms is not asked to POST
SIZES = [1, 15, 4095, 16384, 65536, 65537, 262_145, 1_000_003]


def noise(count: int) -> bytes:
    return random.Random(count).randbytes(count)


def test_keep_alive_many_requests_use_one_conn_and_one_upstream_conn(pair: Pair, visit: Visit) -> None:
    with ScriptedUpstream(serving(lambda wire, asked: wire.send(response(asked.target.encode())))) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        for i in range(50):
            visitor.send(request(f"/{i}"))
            assert visitor.read_response().body == f"/{i}".encode()
        assert len(upstream.conns) == 1
        assert pair.server.stats()["streams_total"] == 1
        assert pair.server.stats()["requests_total"] == 50


def test_requests_to_different_hosts_on_one_conn_reach_their_upstreams(pair: Pair, visit: Visit) -> None:
    with (
        ScriptedUpstream(answering(response(b"first"))) as first,
        ScriptedUpstream(answering(response(b"second"))) as second,
    ):
        pair.serve_http("a.tun.test", first.upstream())
        pair.serve_http("b.tun.test", second.upstream())
        visitor = visit()
        for _ in range(5):
            visitor.send(request(host="a.tun.test"))
            assert visitor.read_response().body == b"first"
            visitor.send(request(host="B.Tun.Test.:8080"))
            assert visitor.read_response().body == b"second"


def test_pipelined_requests_are_answered_in_order(pair: Pair, visit: Visit) -> None:
    def handle(wire: Wire, asked: Message) -> None:
        wire.send(response(asked.target.encode() + asked.body))

    with ScriptedUpstream(serving(handle)) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        pair.serve_http("b.tun.test", upstream.upstream())
        visitor = visit()
        many = [
            request(f"/{i}", host=f"{'ab'[i % 2]}.tun.test", method="POST" if i % 3 else "GET", body=b"x" * (i % 3))
            for i in range(60)
        ]
        many[30] = request("/30", host="unknown.test")
        visitor.send(*many)
        for i in range(60):
            answer = visitor.read_response()
            if i == 30:
                assert answer.code == "SPK-UNKNOWN-HOST"
            else:
                assert answer.body == f"/{i}".encode() + b"x" * (i % 3)


def test_pipelined_requests_larger_than_every_buffer_are_all_answered(pair: Pair, visit: Visit) -> None:
    with ScriptedUpstream(serving(lambda wire, asked: wire.send(response(asked.target.encode())))) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        count = 400
        data = b"".join(request(f"/{i}", "X-Filler: " + "f" * 4000) for i in range(count))
        sender = threading.Thread(target=visitor.sock.sendall, args=(data,), daemon=True)
        sender.start()
        for i in range(count):
            assert visitor.read_response().body == f"/{i}".encode()
        join_thread(sender)


def test_request_head_split_at_every_byte_is_understood(pair: Pair, visit: Visit) -> None:
    with ScriptedUpstream(serving(lambda wire, asked: wire.send(response(asked.body)))) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        whole = request("/path", "X-One: 1", "Content-Length: 3", method="POST") + b"abc"
        for cut in range(1, len(whole)):
            visitor.send_in_parts([whole[:cut], whole[cut:]])
            assert visitor.read_response().body == b"abc"


def test_request_sent_byte_by_byte_is_understood(pair: Pair, visit: Visit) -> None:
    with ScriptedUpstream(serving(lambda wire, asked: wire.send(response(asked.body)))) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        whole = b"\r\n" + request("/", "Transfer-Encoding: chunked", method="POST")
        whole += chunked(b"abcdef", 2, b";e", b"T: 1\r\n")
        visitor.send_in_parts([bytes([byte]) for byte in whole], pause_s=0.0005)
        assert visitor.read_response().body == b"abcdef"


@pytest.mark.parametrize(
    "answer",
    [
        response(b"abc", "200 OK", "X-One: 1"),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(b"abc", 2, b";x=1", b"T: 1\r\n"),
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + response(b"abc"),
    ],
    ids=["length", "chunked", "interim"],
)
def test_response_split_at_every_byte_is_understood(pair: Pair, visit: Visit, answer: bytes) -> None:
    cuts = iter(range(1, len(answer)))

    def handle(wire: Wire, _: Message) -> None:
        cut = next(cuts)
        wire.send_in_parts([answer[:cut], answer[cut:]])

    with ScriptedUpstream(serving(handle)) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        for _ in range(1, len(answer)):
            visitor.send(request())
            assert visitor.read_response().body == b"abc"
        assert len(upstream.conns) == 1


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_body_arrives_unchanged_in_both_directions(pair: Pair, visit: Visit, framing: str, size: int) -> None:
    def handle(wire: Wire, asked: Message) -> None:
        if framing == "length":
            wire.send(response(asked.body, "200 OK", KEEPS))
        else:
            wire.send(f"HTTP/1.1 200 OK\r\n{KEEPS}\r\nTransfer-Encoding: chunked\r\n\r\n".encode(),
                      chunked(asked.body, 7919))

    body = noise(size)
    with ScriptedUpstream(serving(handle)) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        for _ in range(3):
            if framing == "length":
                sent = request(method="POST", body=body)
            else:
                sent = request("/", "Transfer-Encoding: chunked", method="POST") + chunked(body, 6007)
            sender = threading.Thread(target=visitor.sock.sendall, args=(sent,), daemon=True)
            sender.start()
            assert visitor.read_response().body == body
            join_thread(sender)
        assert len(upstream.conns) == 1


@pytest.mark.parametrize("framing", ["length", "chunked", "until close"])
def test_ten_megabytes_come_down_with_their_checksum(pair: Pair, visit: Visit, framing: str) -> None:
    body = noise(10_000_000)

    def handle(wire: Wire, _: Message) -> None:
        if framing == "length":
            wire.send(response(body))
        elif framing == "chunked":
            wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", chunked(body, 99_991))
        else:
            wire.send(b"HTTP/1.1 200 OK\r\n\r\n", body)
            wire.end_sending()

    with ScriptedUpstream(serving(handle)) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        visitor.send(request())
        answer = visitor.read_response()
        assert hashlib.sha256(answer.body).digest() == hashlib.sha256(body).digest()


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_ten_megabytes_go_up_with_their_checksum(pair: Pair, visit: Visit, framing: str) -> None:
    body = noise(10_000_000)

    def handle(wire: Wire, asked: Message) -> None:
        wire.send(response(hashlib.sha256(asked.body).digest()))

    with ScriptedUpstream(serving(handle)) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        if framing == "length":
            visitor.send(request(method="PUT", body=body))
        else:
            visitor.send(request("/", "Transfer-Encoding: chunked", method="PUT"), chunked(body, 99_991))
        assert visitor.read_response().body == hashlib.sha256(body).digest()


def test_chunk_extensions_and_trailers_are_dropped_both_ways(pair: Pair, visit: Visit) -> None:
    raw: list[bytes] = []

    def script(wire: Wire) -> None:
        wire.read_head()
        raw.append(wire.read_until(b"0\r\n\r\n"))
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n"
        wire.send(head, chunked(b"downwards", 4, b";down=1", b"X-T: 2\r\n"))
        wire.read_request()

    with ScriptedUpstream(script) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        up = chunked(b"upwards", 3, b';name="quoted"', b"X-Up: 1\r\nX-Admin: yes\r\n")
        visitor.send(request("/", "Transfer-Encoding: chunked", "Trailer: X-Up", method="POST"), up)
        assert visitor.read_head().all("Trailer") == []
        assert visitor.read_until(b"0\r\n\r\n") == chunked(b"downwards", 4)
        assert raw == [chunked(b"upwards", 3)]


def test_chunks_move_on_at_once(pair: Pair, visit: Visit) -> None:
    go_on = threading.Event()

    def script(wire: Wire) -> None:
        wire.read_request()
        wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        assert go_on.wait(5)
        wire.send(b"3\r\ntwo\r\n0\r\n\r\n")
        wire.read_request()

    with ScriptedUpstream(script) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        visitor.send(request())
        visitor.read_head()
        assert visitor.read_until(b"one\r\n") == b"3\r\none\r\n"
        go_on.set()
        assert visitor.read_until(b"0\r\n\r\n") == b"3\r\ntwo\r\n0\r\n\r\n"


def test_http10_visitor_gets_chunks_stripped_and_a_close(pair: Pair, visit: Visit) -> None:
    chunks = chunked(b"0123456789" * 5000, 777, b";e", b"T: 1\r\n")
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks
    with ScriptedUpstream(answering(answer)) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        visitor.send(request("/", "Connection: keep-alive", version="1.0"))
        head = visitor.read_head()
        assert head.all("Transfer-Encoding") == [] and head.one("Connection") == "close"
        assert visitor.read_to_end() == b"0123456789" * 5000


def test_http10_visitor_with_keep_alive_sends_a_second_request(pair: Pair, visit: Visit) -> None:
    with ScriptedUpstream(answering(response(b"one"), response(b"two"))) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        visitor.send(request("/", "Connection: keep-alive", version="1.0"))
        answer = visitor.read_response()
        assert answer.body == b"one" and answer.one("Connection") == "keep-alive"
        visitor.send(request("/", version="1.0"))
        answer = visitor.read_response()
        assert answer.body == b"two" and answer.one("Connection") == "close"
        visitor.assert_closed()


def test_http10_visitor_is_not_shown_interim_answers(pair: Pair, visit: Visit) -> None:
    with ScriptedUpstream(answering(b"HTTP/1.1 103 Early Hints\r\n\r\n" + response(b"body"))) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        visitor.send(request(version="1.0"))
        answer = visitor.read_response()
        assert (answer.status, answer.interims, answer.body) == (200, [], b"body")


def test_http10_upstream_is_spoken_to_and_answered_in_http11(pair: Pair, visit: Visit) -> None:
    def script(wire: Wire) -> None:
        asked = wire.read_request()
        assert asked is not None and asked.start == "GET / HTTP/1.1"
        wire.send(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok")

    with ScriptedUpstream(script) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        for _ in range(2):
            visitor.send(request())
            answer = visitor.read_response()
            assert answer.start == "HTTP/1.1 200 OK" and answer.body == b"ok"
        assert len(upstream.conns) == 2


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"),
        ("HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("HEAD", b"HTTP/1.1 200 OK\r\n\r\n"),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 500\r\n\r\n"),
        ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ],
)
def test_response_without_a_body_keeps_the_conn(pair: Pair, visit: Visit, method: str, answer: bytes) -> None:
    with ScriptedUpstream(answering(answer, answer, response(b"after"))) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        for _ in range(2):
            visitor.send(request(method=method))
            head = visitor.read_head()
            assert f"HTTP/1.1 {head.status}".encode() == answer[:12] and head.one("Connection") == ""
        visitor.send(request())
        assert visitor.read_response().body == b"after"
        assert len(upstream.conns) == 1


def test_head_of_a_page_has_no_body_and_the_conn_goes_on(pair: Pair, visit: Visit) -> None:
    with ScriptedUpstream(answering(response(b"after"))) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        visitor.send(request(host="unknown.test", method="HEAD"), request())
        assert visitor.read_response("HEAD").status == 404
        assert visitor.read_response().body == b"after"


def test_response_until_close_ends_with_the_conn(pair: Pair, visit: Visit) -> None:
    def script(wire: Wire) -> None:
        wire.read_request()
        wire.send(b"HTTP/1.1 200 OK\r\n\r\n")
        for i in range(100):
            wire.send(b"%04d" % i * 1000)

    with ScriptedUpstream(script) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        visitor.send(request())
        head = visitor.read_head()
        assert head.one("Connection") == "close"
        assert visitor.read_to_end() == b"".join(b"%04d" % i * 1000 for i in range(100))


def test_response_until_close_ended_by_an_abort_is_aborted(pair: Pair, visit: Visit) -> None:
    def script(wire: Wire) -> None:
        wire.read_request()
        wire.send(b"HTTP/1.1 200 OK\r\n\r\npart")
        assert read_part.wait(5)
        wire.abort()

    read_part = threading.Event()
    with ScriptedUpstream(script) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        visitor.send(request())
        visitor.read_until(b"part")
        read_part.set()
        with pytest.raises(Ended) as ended:
            visitor.read_to_end()
        assert ended.value.reset


def test_connection_close_from_the_visitor_is_honoured(pair: Pair, visit: Visit) -> None:
    with ScriptedUpstream(answering(response(b"bye"))) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        visitor.send(request("/", "Connection: close"))
        answer = visitor.read_response()
        assert answer.body == b"bye" and answer.one("Connection") == "close"
        visitor.assert_closed()


def test_connection_close_from_the_upstream_is_not_passed_on(pair: Pair, visit: Visit) -> None:
    def script(wire: Wire) -> None:
        wire.read_request()
        wire.send(response(b"once", "200 OK", "Connection: close"))

    with ScriptedUpstream(script) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        for _ in range(3):
            visitor.send(request())
            answer = visitor.read_response()
            assert answer.body == b"once" and answer.one("Connection") == ""
        assert len(upstream.conns) == 3


def test_expect_100_continue_works_with_a_body(pair: Pair, visit: Visit) -> None:
    def script(wire: Wire) -> None:
        for _ in range(2):
            asked = wire.read_head()
            assert asked.one("Expect") == "100-continue"
            wire.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            wire.send(response(wire.read(int(asked.one("Content-Length")))))
        wire.read_request()

    with ScriptedUpstream(script) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        for _ in range(2):
            visitor.send(request("/", "Expect: 100-continue", "Content-Length: 70000", method="POST"))
            assert visitor.read_head().start == "HTTP/1.1 100 Continue"
            visitor.send(noise(70000))
            assert visitor.read_response().body == noise(70000)


def test_interim_answers_are_passed_on(pair: Pair, visit: Visit) -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n"
    with ScriptedUpstream(answering(hints * 3 + b"HTTP/1.1 102 Processing\r\n\r\n" + response(b"done"))) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        for _ in range(2):
            visitor.send(request())
            answer = visitor.read_response()
            assert [interim.status for interim in answer.interims] == [103, 103, 103, 102]
            assert answer.interims[0].one("Link") and answer.body == b"done"


def test_early_response_is_delivered_though_the_body_goes_on(pair: Pair, visit: Visit) -> None:
    def script(wire: Wire) -> None:
        wire.read_head()
        wire.send(response(b"too large", "413 Content Too Large"))
        wire.read_to_end()

    with ScriptedUpstream(script) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        visitor.send(request("/", "Content-Length: 100000000", method="POST"), noise(300_000))
        answer = visitor.read_response()
        assert (answer.status, answer.body, answer.one("Connection")) == (413, b"too large", "close")
        visitor.assert_closed()


@pytest.mark.parametrize("attempt", range(10))
def test_early_response_of_an_upstream_that_closes_with_the_body_unread_is_delivered(
    pair: Pair, visit: Visit, attempt: int
) -> None:
    """Its close is an RST, which may overtake what we still write; its answer came before."""

    def script(wire: Wire) -> None:
        wire.read_head()
        if attempt % 2:
            wire.sock.recv(1, socket.MSG_PEEK)
        wire.send(response(b"too large", "413 Content Too Large"))

    with ScriptedUpstream(script) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        body = threading.Thread(target=send_quietly, args=(visitor, noise(4_000_000)), daemon=True)
        visitor.send(request("/", "Content-Length: 100000000", method="POST"))
        body.start()
        answer = visitor.read_response()
        assert (answer.status, answer.body, answer.one("Connection")) == (413, b"too large", "close")
        visitor.close()
        body.join(5)


def send_quietly(wire: Wire, data: bytes) -> None:
    with contextlib.suppress(OSError):
        wire.send(data)


def test_early_response_head_with_both_bodies_going_on_works(pair: Pair, visit: Visit) -> None:
    """A response may begin before the request ends: both bodies flow (full duplex)."""

    def script(wire: Wire) -> None:
        wire.read_head()
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n")
        for _ in range(3):
            wire.send(wire.read(2))
        wire.read_request()

    with ScriptedUpstream(script) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        visitor.send(request("/", "Content-Length: 6", method="POST"))
        visitor.read_head()
        for part in (b"ab", b"cd", b"ef"):
            visitor.send(part)
            assert visitor.read(2) == part


def test_forwarded_fields_are_overwritten_and_their_twins_dropped(pair: Pair, visit: Visit) -> None:
    seen: list[Message] = []

    def handle(wire: Wire, asked: Message) -> None:
        seen.append(asked)
        wire.send(response())

    lies = [
        "X-Forwarded-For: 6.6.6.6", "x-forwarded-for: 7.7.7.7", "X_Forwarded_For: 8.8.8.8", "X-Forwarded_Proto: https",
        "X-Forwarded-Host: evil.test", "X-Forwarded-Port: 1", "Forwarded: for=6.6.6.6", "X-Real-IP: 6.6.6.6",
        "X_Real_IP: 6.6.6.6", "X-Real_IP: 6.6.6.6", "Proxy: http://evil.test/", "X-Kept: 1", "X_Kept_Too: 2",
    ]
    with ScriptedUpstream(serving(handle)) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        nominated = ["Connection: X-Forwarded-For, X-Nominated", "X-Nominated: 1"]
        visitor.send(request("/", *lies, *nominated, host="A.tun.test:80"))
        visitor.read_response()
    asked = seen[0]
    assert asked.one("X-Forwarded-For") == "127.0.0.1" and asked.one("X-Real-IP") == "127.0.0.1"
    assert asked.one("X-Forwarded-Proto") == "http" and asked.one("X-Forwarded-Host") == "a.tun.test"
    assert asked.one("Host") == "A.tun.test:80" and asked.one("X-Kept") == "1" and asked.one("X_Kept_Too") == "2"
    names = {name.lower().replace("_", "-") for name, _ in asked.fields}
    assert not names & {"forwarded", "x-forwarded-port", "proxy", "x-nominated", "connection"}
    assert not any("6.6.6.6" in value or "evil" in value for _, value in asked.fields)


def test_host_is_rewritten_where_the_upstream_wants_another(pair: Pair, visit: Visit) -> None:
    seen: list[Message] = []

    def handle(wire: Wire, asked: Message) -> None:
        seen.append(asked)
        wire.send(response())

    with ScriptedUpstream(serving(handle)) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream(host="inside.example:8080"))
        visitor = visit()
        visitor.send(request("http://a.tun.test/path?q=1"))
        visitor.read_response()
    assert seen[0].one("Host") == "inside.example:8080" and seen[0].one("X-Forwarded-Host") == "a.tun.test"
    assert seen[0].target == "/path?q=1"


def test_unknown_methods_and_their_bodies_are_passed_on(pair: Pair, visit: Visit) -> None:
    def handle(wire: Wire, asked: Message) -> None:
        wire.send(response(asked.method.encode() + asked.body))

    with ScriptedUpstream(serving(handle)) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        for method in ("GET", "PROPFIND", "BREW", "get", "DELETE", "OPTIONS", "PATCH"):
            visitor.send(request(method=method, body=b"body"))
            assert visitor.read_response().body == method.encode() + b"body"


def filled(message: bytes, head_bytes: int, field_count: int) -> bytes:
    """The message with fields of ours more, until its head has so many bytes and fields."""
    head, _, body = message.partition(b"\r\n\r\n")
    count = field_count - head.count(b"\r\n")
    room = head_bytes - len(head) - 4 - count * len(b"\r\nX: ")
    for left in range(count, 0, -1):
        value = min(room, 8000) if left > 1 else room
        head, room = head + b"\r\nX: " + b"v" * value, room - value
    return head + b"\r\n\r\n" + body


@pytest.mark.parametrize(("head_bytes", "field_count"), [(32_768, 100), (32_768, 8), (4_000, 100)])
def test_head_at_the_limits_passes_both_ways_however_much_is_added_to_it(
    pair: Pair, visit: Visit, head_bytes: int, field_count: int
) -> None:
    answer = filled(response(b"ok"), head_bytes, field_count)

    def handle(wire: Wire, asked: Message) -> None:
        assert sum(name == "X" for name, _ in asked.fields) == field_count - 1
        wire.send(answer)

    with ScriptedUpstream(serving(handle)) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        with visit() as visitor:
            visitor.send(filled(request("/"), head_bytes, field_count))
            got = visitor.read_response()
            assert (got.status, got.body) == (200, b"ok")
            assert sum(name == "X" for name, _ in got.fields) == field_count - 1
        for over in ((head_bytes + 1, field_count), (head_bytes, field_count + 1)):
            if over[0] > 32_768 or over[1] > 100:
                with visit() as visitor:
                    visitor.send(filled(request("/"), *over))
                    assert visitor.read_response().code == "SPK-HEAD-TOO-LARGE"
                answer = filled(response(b"ok"), *over)
                with visit() as visitor:
                    visitor.send(filled(request("/"), head_bytes, field_count))
                    assert visitor.read_response().code == "SPK-UPSTREAM-HEAD"


def test_head_of_nearly_32_kib_passes_both_ways(pair: Pair, visit: Visit) -> None:
    fields = [f"X-{i}: {'v' * 7000}" for i in range(4)]
    step = 50_000

    def handle(wire: Wire, asked: Message) -> None:
        assert [asked.one(f"X-{i}") for i in range(4)] == ["v" * 7000] * 4
        answer = response(b"ok", "200 OK", *fields)
        wire.send_in_parts([answer[at : at + step] for at in range(0, len(answer), step)], pause_s=0.003)

    with ScriptedUpstream(serving(handle)) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit()
        for step in (50_000, 16_384, 16_385, 9000, 5000, 3000):
            whole = request("/", *fields)
            visitor.send_in_parts([whole[at : at + step] for at in range(0, len(whole), step)], pause_s=0.003)
            answer = visitor.read_response()
            assert answer.one("X-3") == "v" * 7000 and answer.body == b"ok"
        assert len(upstream.conns) == 1
