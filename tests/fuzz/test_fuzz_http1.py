"""Random and mutated HTTP messages: whole against in pieces, and against h11.

SPOKES_FUZZ_EXAMPLES sets the examples per test (default: what takes a few seconds).
"""

from __future__ import annotations

import os
import re
from itertools import pairwise

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from spokes._fastpath.hooks.http_hooks import read_host

from spokes._fastpath.hooks import http1_hooks as http1
from tests.support import h11_oracle

LONG_RUN = settings(
    max_examples=int(os.environ.get("SPOKES_FUZZ_EXAMPLES", "1000")),
    deadline=None,
    suppress_health_check=list(HealthCheck),
)

RC_PROTO = -5002
NONE, LENGTH, CHUNKED, UNTIL_CLOSE = range(4)
METHODS = {b"GET": 1, b"HEAD": 2}

# Pieces that matter to framing, and single odd bytes between them.
PIECES = [
    b"GET / HTTP/1.1\r\n",
    b"POST /a?b HTTP/1.1\r\n",
    b"GET http://a/ HTTP/1.1\r\n",
    b"GET / HTTP/1.0\r\n",
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 204 No\r\n",
    b"HTTP/1.1 304 No\r\n",
    b"HTTP/1.0 200 OK\r\n",
    b"HTTP/1.1 100 C\r\n",
    b"Host: a\r\n",
    b"Host: b:80\r\n",
    b"Content-Length: 5\r\n",
    b"Content-Length: ",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding:",
    b"Connection: ",
    b"close",
    b"keep-alive",
    b"Upgrade: websocket\r\n",
    b"Expect: 100-continue\r\n",
    b"X-Forwarded-For: 1\r\n",
    b"chunked",
    b"gzip",
    b"5",
    b"0",
    b"+5",
    b"0x5",
    b"a",
    b"A: b\r\n",
    b"\r\n",
    b"\r\n\r\n",
    b"\r",
    b"\n",
    b" ",
    b"\t",
    b":",
    b",",
    b";",
    b"\x00",
    b"\x0b",
    b"\x7f",
    b"\xff",
    b"5\r\nhello\r\n",
    b"0\r\n\r\n",
    b"5;a=b\r\n",
    b"ffffffffffffffff\r\n",
    b"hello",
]
SOUP = st.lists(st.one_of(st.sampled_from(PIECES), st.binary(max_size=3)), max_size=25).map(b"".join)

FIELDS = st.sampled_from(
    [
        "A: b",
        "A:",
        "Host: a",
        "Host: A.:80",
        "Content-Length: 5",
        "Content-Length: 0",
        "content-length:\t3 ",
        "Content-Length: 05",
        "Content-Length: 5, 5",
        "Transfer-Encoding: chunked",
        "transfer-encoding:CHUNKED",
        "Transfer-Encoding: gzip",
        "Connection: close",
        "Connection: keep-alive, A",
        "Connection: upgrade",
        "Upgrade: websocket",
        "Expect: 100-continue",
        "X-Forwarded-For: 1",
        "X_Real_IP: 1",
        "TE: trailers",
        "Trailer: A",
        "Date: now",
        " folded",
        "A : b",
        "A: b\x00",
        "Proxy-Authorization: x",
        "Keep-Alive: 1",
    ]
)
REQUEST_LINES = st.sampled_from(
    [
        "GET / HTTP/1.1",
        "POST /x?y HTTP/1.1",
        "HEAD / HTTP/1.0",
        "FOO http://a/x HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "GET http://a HTTP/1.0",
        "GET * HTTP/1.1",
        "GET /  HTTP/1.1",
    ]
)
STATUS_LINES = st.sampled_from(
    [
        "HTTP/1.1 200 OK",
        "HTTP/1.1 200",
        "HTTP/1.0 200 ",
        "HTTP/1.1 204 No",
        "HTTP/1.1 304 No",
        "HTTP/1.1 404 a b",
        "HTTP/1.1 999 X",
        "HTTP/1.1 20 OK",
    ]
)
BODIES = st.lists(
    st.sampled_from(
        [b"5\r\nhello\r\n", b"1;x=y\r\na\r\n", b"0\r\n", b"\r\n", b"A: b\r\n", b"0\r\n\r\n", b"GET / HTTP/1.1", b"\n"]
    ),
    max_size=6,
).map(b"".join)


def head_of(line: str, fields: list[str], with_host: bool) -> bytes:
    return "".join(f"{x}\r\n" for x in [line, *(["Host: a"] if with_host else []), *fields, ""]).encode("latin-1")


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    return head_of(draw(REQUEST_LINES), draw(st.lists(FIELDS, max_size=4)), draw(st.booleans())) + draw(BODIES)


@st.composite
def responses(draw: st.DrawFn) -> bytes:
    return head_of(draw(STATUS_LINES), draw(st.lists(FIELDS, max_size=4)), False) + draw(BODIES)


@st.composite
def mutated(draw: st.DrawFn, messages: st.SearchStrategy[bytes]) -> bytes:
    raw = bytearray(draw(messages))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(raw)))
        raw[at : at + draw(st.integers(0, 2))] = draw(st.one_of(st.sampled_from(PIECES), st.binary(max_size=2)))
    return bytes(raw)


def pieces_of(raw: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(raw) + 1) for cut in cuts), len(raw)]
    return [raw[a:b] for a, b in pairwise(edges)]


CUTS = st.lists(st.integers(0, 1 << 16), max_size=4)


def end_in_pieces(raw: bytes, lengths: list[int]) -> int:
    resume = 0
    for there in lengths:
        result, resume = http1.head_end(raw[:there], resume)
        if result:
            return result
    return 0


@LONG_RUN
@given(raw=st.one_of(SOUP, mutated(requests())), cuts=CUTS)
def test_head_end_in_pieces_is_as_whole(raw, cuts):
    whole, _ = http1.head_end(raw)
    assert end_in_pieces(raw, list(range(len(raw) + 1))) == whole
    assert end_in_pieces(raw, [*sorted(cut % (len(raw) + 1) for cut in cuts), len(raw)]) == whole


@LONG_RUN
@given(
    raw=st.one_of(SOUP, BODIES, mutated(BODIES)),
    kind=st.sampled_from([LENGTH, CHUNKED, UNTIL_CLOSE]),
    cuts=CUTS,
    strip=st.booleans(),
)
def test_body_in_pieces_is_as_whole(raw, kind, cuts, strip):
    whole = http1.walk_body(kind, 7, [raw], strip)
    assert http1.walk_body(kind, 7, [raw[i : i + 1] for i in range(len(raw))], strip) == whole
    assert http1.walk_body(kind, 7, pieces_of(raw, cuts), strip) == whole


@LONG_RUN
@given(raw=st.one_of(SOUP, mutated(requests()), st.binary(max_size=200)))
def test_parsers_of_any_bytes_answer(raw):
    for parse in (http1.parse_request, http1.parse_response, http1.rewrite_request, http1.rewrite_response):
        result = parse(raw)
        if isinstance(result, int):
            assert -5012 <= result <= -5001
    assert read_host(raw) == RC_PROTO or len(read_host(raw)) <= 253


@LONG_RUN
@given(raw=st.one_of(requests(), mutated(requests()), SOUP))
def test_request_accepted_here_is_accepted_by_h11_with_the_same_end(raw):
    end, _ = http1.head_end(raw)
    head = http1.parse_request(raw[:end]) if end > 0 else end
    if isinstance(head, int):
        return
    oracle = h11_oracle.read_request(raw)
    _, taken, done = http1.walk_body(*head["body"], [raw[end:]])
    data, _, _ = http1.walk_body(*head["body"], [raw[end:]], 1)
    if done is True:
        assert oracle == h11_oracle.Message(data, end + taken, True)
    elif done is False:
        assert oracle is not None
        assert not oracle.is_complete

    # What is written is one head, says the same, and h11 reads the same body behind it.
    written = http1.rewrite_request(raw[:end], visitor=b"192.0.2.1", host=b"up")
    assert http1.head_end(written)[0] == len(written)
    again = http1.parse_request(written)
    assert (again["body"], again["method_name"], again["upgrade"]) == (
        head["body"],
        head["method_name"],
        head["upgrade"],
    )
    assert sum(name.lower().replace(b"_", b"-") == b"x-forwarded-for" for name, _, _ in again["fields"]) == 1
    passed, _, _ = http1.walk_body(*head["body"], [raw[end:]])
    if done is True:
        oracle = h11_oracle.read_request(written + passed)
        assert oracle == h11_oracle.Message(data, len(written + passed), True)


@LONG_RUN
@given(raw=st.one_of(responses(), mutated(responses())), method=st.sampled_from([b"GET", b"HEAD"]))
def test_response_accepted_here_is_accepted_by_h11_with_the_same_end(raw, method):
    end, _ = http1.head_end(raw)
    head = http1.parse_response(raw[:end], METHODS[method]) if end > 0 else end
    if isinstance(head, int) or head["status"] < 200:
        return
    ends_at_close = head["body"][0] == UNTIL_CLOSE
    # h11 refuses blanks before a colon; a proxy has to take them off (RFC 9112 §5.1), so it gets the head without them.
    fields_at = raw.index(b"\r\n")
    tight = raw[:fields_at] + re.sub(rb"\n([^:\r\n]*[^:\r\n \t])[ \t]+:", rb"\n\1:", raw[fields_at:end])
    raw, end = tight + raw[end:], len(tight)
    oracle = h11_oracle.read_response(raw, method, ends_at_close=ends_at_close)
    _, taken, done = http1.walk_body(*head["body"], [raw[end:]])
    data, _, _ = http1.walk_body(*head["body"], [raw[end:]], 1)
    if done is True or ends_at_close:
        assert oracle == h11_oracle.Message(data, end + taken, True)
    elif done is False:
        assert oracle is not None
        assert not oracle.is_complete

    written = http1.rewrite_response(raw[:end], METHODS[method])
    assert http1.head_end(written)[0] == len(written)
    again = http1.parse_response(written, METHODS[method])
    assert (again["body"], again["status"], again["reason"]) == (head["body"], head["status"], head["reason"])
