"""Hostile visitors: messages with two readings over the real path of two hops."""

from __future__ import annotations

import contextlib
import socket
import time

import pytest

pytestmark = pytest.mark.e2e

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"

# Header lines and body; each is one message to some reader and two to another.
TWO_OPINIONS = {
    "length and chunked": (b"Content-Length: 4\r\nTransfer-Encoding: chunked", b"0\r\n\r\n" + SMUGGLED),
    "two lengths": (b"Content-Length: 0\r\nContent-Length: 34", SMUGGLED),
    "same length twice": (b"Content-Length: 4\r\nContent-Length: 4", b"abcd"),
    "listed lengths": (b"Content-Length: 4, 4", b"abcd"),
    "plus sign": (b"Content-Length: +4", b"abcd"),
    "hexadecimal": (b"Content-Length: 0x4", b"abcd"),
    "leading zero": (b"Content-Length: 04", b"abcd"),
    "negative": (b"Content-Length: -1", b""),
    "over 2^63": (b"Content-Length: 9223372036854775808", b""),
    "empty length": (b"Content-Length:", b""),
    "unknown coding": (b"Transfer-Encoding: xchunked", b"0\r\n\r\n"),
    "chunked not last": (b"Transfer-Encoding: chunked, identity", b"0\r\n\r\n"),
    "vertical tab": (b"Transfer-Encoding:\x0bchunked", b"0\r\n\r\n"),
    "space before colon": (b"Transfer-Encoding : chunked", b"0\r\n\r\n"),
    "folded line": (b"Transfer-Encoding:\r\n chunked", b"0\r\n\r\n"),
    "length nominated": (b"Connection: content-length\r\nContent-Length: 34", SMUGGLED),
    "bare LF": (b"X: y\nContent-Length: 34", SMUGGLED),
    "bare CR": (b"X: a\rb", b""),
    "NUL": (b"X: a\0b", b""),
    "empty name": (b": b", b""),
    "second host": (b"Host: other.example", b""),
}  # fmt: skip


@pytest.mark.parametrize("case", TWO_OPINIONS)
def test_visitor_message_with_two_readings_is_400_closed_and_reaches_nobody(server, target, recorder, case):
    lines, body = TWO_OPINIONS[case]
    host = target.hostname.encode()
    answer = _exchange(server.http_port, b"POST / HTTP/1.1\r\nHost: " + host + b"\r\n" + lines + b"\r\n\r\n" + body)
    status = b"501" if case == "unknown coding" else b"400"  # RFC 9112, 6.1
    assert answer.startswith(b"HTTP/1.1 " + status + b" ")
    assert answer.count(b"HTTP/1.1 ") == 1
    assert recorder.received == b""


def test_visitor_error_in_a_pipeline_ends_it_there(server, target, recorder):
    host = target.hostname.encode()
    good = b"GET /%d HTTP/1.1\r\nHost: " + host + b"\r\n\r\n"
    answer = _exchange(server.http_port, good % 1 + b"GE T /2\r\n\r\n" + good % 3)
    assert [part[:3] for part in answer.split(b"HTTP/1.1 ")[1:] if part[:1].isdigit()] == [b"200", b"400"]
    assert b"GET /1 " in recorder.received and b"GET /3 " not in recorder.received


def test_visitor_cannot_tell_the_upstream_who_it_is(server, target, recorder):
    _exchange(
        server.http_port,
        b"GET / HTTP/1.1\r\nHost: " + target.hostname.encode() + b"\r\nX-Forwarded-For: 6.6.6.6\r\n"
        b"X_Forwarded_For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\nX_Real-IP: 6.6.6.6\r\n"
        b"X-Forwarded-Host: 6.6.6.6\r\nConnection: close, X-Forwarded-For\r\n\r\n",
    )
    assert b"6.6.6.6" not in recorder.received
    assert recorder.received.count(b"X-Forwarded-For: 127.0.0.1\r\n") == 1


def test_visitor_too_slow_is_cut_while_others_are_served(server, target):
    begun = time.monotonic()
    with (
        socket.create_connection(("127.0.0.1", server.https_port), 10) as hello,
        socket.create_connection(("127.0.0.1", server.http_port), 20) as head,
    ):
        hello.sendall(b"\x16\x03\x01\x02\x00\x01")
        head.sendall(b"GET / HTTP/1.1\r\nHost: " + target.hostname.encode() + b"\r\nX: ")
        assert hello.recv(8) == b"\x15\x03\x01\x00\x02\x02\x32"     # an alert: decode_error
        assert hello.recv(1) == b""
        assert 4 < time.monotonic() - begun < 8
        assert server.serves(target.hostname)
        head.sendall(b"a")  # a drop now and then buys no time
        assert head.recv(65536).startswith(b"HTTP/1.1 408 ")
        assert 9 < time.monotonic() - begun < 14


BROKEN_ANSWERS = {
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 5\r\n\r\nhello",
    "length and chunked": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "101 unasked": b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    "giant field": b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
    "bare LF": b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
    "bare CR": b"HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 0\r\n\r\n",
    "interim with a body": b"HTTP/1.1 103 Hints\r\nContent-Length: 5\r\n\r\nhello",
    "interims without end": b"HTTP/1.1 100 Continue\r\n\r\n" * 1000,
}


@pytest.mark.parametrize("case", BROKEN_ANSWERS)
def test_upstream_broken_answer_is_502_and_spoils_no_other(server, target, recorder, case):
    request = b"GET / HTTP/1.1\r\nHost: " + target.hostname.encode() + b"\r\n\r\n"
    recorder.answer = BROKEN_ANSWERS[case]
    try:
        assert b"HTTP/1.1 502 " in _exchange(server.http_port, request)
    finally:
        recorder.answer = None
    assert _exchange(server.http_port, request).startswith(b"HTTP/1.1 200 ")


def test_upstream_split_answer_is_never_the_answer_to_the_next_request(server, target, recorder):
    request = b"GET /%d HTTP/1.1\r\nHost: " + target.hostname.encode() + b"\r\n\r\n"
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
    recorder.answer = head % 2 + b"ok" + head % 6 + b"poison"
    try:
        answer = _exchange(server.http_port, request % 1 + request % 2)
    finally:
        recorder.answer = None
    assert b"poison" not in answer + _exchange(server.http_port, request % 3)


def _exchange(port: int, data: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), 10) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while part := sock.recv(65536):
                answer += part
        return answer
