"""http1: heads, bodies and rewriting; what is refused, and h11 as second opinion on what is not."""

from __future__ import annotations

import re
import string

import pytest
from spokes._fastpath.hooks.http_hooks import read_host

from spokes._fastpath.hooks import http1_hooks as http1
from tests.support import h11_oracle

RC_PROTO = -5002
RC_LIMIT = -5003
RC_TOO_LARGE = -5011
RC_UNSUPPORTED = -5012
RC_TARGET = -5013
RC_VERSION = -5014

FIELD_COUNT_MAX = 100
LINE_BYTES_MAX = 8192
HEAD_BYTES_MAX = 32768
STEP_FIELD_BYTES_MAX = 4096
METHOD_BYTES_MAX = 64

GET, HEAD, CONNECT = 1, 2, 8
NONE, LENGTH, CHUNKED, UNTIL_CLOSE = range(4)
INT64_MAX = 2**63 - 1


def request(*fields: str | bytes, line: str | bytes = "GET / HTTP/1.1", host: bool = True) -> bytes:
    lines = [line, *(["Host: a.example"] if host else []), *fields]
    return b"".join((x if isinstance(x, bytes) else x.encode("latin-1")) + b"\r\n" for x in lines) + b"\r\n"


def response(*fields: str | bytes, line: str | bytes = "HTTP/1.1 200 OK") -> bytes:
    return request(*fields, line=line, host=False)


def read_request(raw: bytes):
    """As the engine does it: find the end, then parse; a code of either."""
    end, _ = http1.head_end(raw)
    return http1.parse_request(raw[:end]) if end > 0 else end


def read_response(raw: bytes, method: int = GET):
    end, _ = http1.head_end(raw)
    return http1.parse_response(raw[:end], method) if end > 0 else end


# --- the end of a head


def scan(raw: bytes, *, step_bytes: int) -> tuple[int, int]:
    """Result of http1_head_end fed in steps, and the bytes that were there when it came."""
    resume = 0
    for there in range(step_bytes, len(raw) + step_bytes, step_bytes):
        result, resume = http1.head_end(raw[:there], resume)
        assert resume < 2**32
        if result:
            return result, min(there, len(raw))
    return 0, len(raw)


WHOLE = request("Accept: */*", "X-Long: " + "v" * 100, "Content-Length: 5")


@pytest.mark.parametrize("cut", range(len(WHOLE) + 1))
def test_head_end_cut_anywhere_waits_and_goes_on(cut):
    result, resume = http1.head_end(WHOLE[:cut])
    assert result == (0 if cut < len(WHOLE) else len(WHOLE))
    if cut < len(WHOLE):
        assert http1.head_end(WHOLE + b"hello", resume)[0] == len(WHOLE)


@pytest.mark.parametrize(
    "bad",
    [
        b"\r\n",
        b"\n",
        b" GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
        b"\x00",
        b"GET / HTTP/1.1\n",
        b"GET / HTTP/1.1\r\r\n",
        b"GET / HTTP/1.1\rHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\n\n",
        b"GET / HTTP/1.1\r\nHost: a\x00\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\x0bb\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\x7f\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\rX",
    ],
)
def test_head_end_byte_no_head_has_is_refused_at_once(bad):
    result, there = scan(bad, step_bytes=1)
    assert result == RC_PROTO
    for step_bytes in (2, 3, 7, 1000):
        assert scan(bad, step_bytes=step_bytes)[0] == RC_PROTO
    assert http1.head_end(bad[: there - 1])[0] == 0


def test_head_end_lone_cr_waits_for_the_empty_line_before_a_request():
    assert (http1.skip_crlf(b"\r"), http1.head_end(b"\r")) == (0, (0, 0))
    assert http1.skip_crlf(b"\r\n") == http1.skip_crlf(b"\r\nGET") == 2
    assert http1.skip_crlf(b"GET / HTTP/1.1\r\n\r\n") == http1.skip_crlf(b"") == 0


@pytest.mark.parametrize("step_bytes", [1, 17, 100_000])
def test_head_end_limits_are_exact(step_bytes):
    line = b"A: " + b"v" * (LINE_BYTES_MAX - 5) + b"\r\n"
    assert len(line) == LINE_BYTES_MAX
    start = b"GET / HTTP/1.1\r\n"
    assert scan(start + line + b"\r\n", step_bytes=step_bytes)[0] == len(start) + len(line) + 2
    too_long = start + line[:-2] + b"v\r\n\r\n"
    result, there = scan(too_long, step_bytes=1)
    assert (result, there) == (RC_TOO_LARGE, len(start) + LINE_BYTES_MAX + 1)
    assert scan(too_long, step_bytes=step_bytes)[0] == RC_TOO_LARGE

    rest = HEAD_BYTES_MAX - 3 * LINE_BYTES_MAX - 2
    fits = line * 3 + line[: rest - 2] + b"\r\n\r\n"
    assert len(fits) == HEAD_BYTES_MAX
    assert scan(fits, step_bytes=step_bytes)[0] == HEAD_BYTES_MAX
    over = line * 3 + line[: rest - 1] + b"\r\n\r\n"
    assert scan(over, step_bytes=step_bytes)[0] == RC_TOO_LARGE


# --- requests


def test_request_plain_says_everything():
    head = read_request(
        request("Accept: \t*/* ", "X-Empty:", "Expect: 100-Continue", "Content-Length: 12", line="POST /a?b=c HTTP/1.1")
    )
    assert head["method_name"] == b"POST"
    assert head["target"] == head["path"] == b"/a?b=c"
    assert head["host"] == b"a.example"
    assert head["fields"][1] == (b"Accept", b"*/*", 0)
    assert head["fields"][2] == (b"X-Empty", b"", 0)
    assert head["body"] == (LENGTH, 12)
    assert head["keep_alive"] and head["expect_continue"] and not head["upgrade"]


BAD_LINES = {
    "HTTP/0.9": b"GET /",
    "lower-case version": b"GET / http/1.1",
    "version without minor": b"GET / HTTP/1",
    "long version": b"GET / HTTP/1.10",
    "text behind version": b"GET / HTTP/1.1 x",
    "blank behind version": b"GET / HTTP/1.1 ",
    "two blanks": b"GET  / HTTP/1.1",
    "two blanks before version": b"GET /  HTTP/1.1",
    "tab": b"GET\t/ HTTP/1.1",
    "no target": b"GET HTTP/1.1",
    "empty target": b"GET  HTTP/1.1",
    "blank in target": b"GET /a b HTTP/1.1",
    "control in target": b"GET /a\x01 HTTP/1.1",
    "tab in target": b"GET /a\tb HTTP/1.1",
    "DEL in target": b"GET /a\x7f HTTP/1.1",
    "raw UTF-8 in target": b"GET /\xc3\xa4 HTTP/1.1",
    "fragment in target": b"GET /a#b HTTP/1.1",
    "method no token": b"G(T / HTTP/1.1",
    "method with colon": b"GET: / HTTP/1.1",
    "target without slash": b"GET a HTTP/1.1",
    "authority form": b"GET a.example:80 HTTP/1.1",
    "star with GET": b"GET * HTTP/1.1",
    "star and more": b"OPTIONS *x HTTP/1.1",
    "other scheme": b"GET ftp://a.example/ HTTP/1.1",
    "scheme alone": b"GET http:// HTTP/1.1",
    "scheme with one slash": b"GET http:/a.example/ HTTP/1.1",
    "absolute without host": b"GET http:///x HTTP/1.1",
    "absolute with query for host": b"GET http://?x HTTP/1.1",
    "absolute disagrees": b"GET http://b.example/ HTTP/1.1",
    "absolute is a part of host": b"GET http://a.exam/ HTTP/1.1",
    "host is a part of absolute": b"GET http://a.example.b/ HTTP/1.1",
    "absolute disagrees in port": b"GET http://a.example:8080/ HTTP/1.1",
    "absolute with other default port": b"GET https://a.example:80/ HTTP/1.1",
    "userinfo": b"GET http://u@a.example/ HTTP/1.1",
    "userinfo that looks like host": b"GET http://a.example@b.example/ HTTP/1.1",
    "userinfo with password": b"GET http://a.example:80@b.example/ HTTP/1.1",
    "backslash host": b"GET http://a.example\\@b.example/ HTTP/1.1",
}


@pytest.mark.parametrize("line", BAD_LINES.values(), ids=BAD_LINES.keys())
def test_request_bad_line_is_refused(line):
    assert read_request(request(line=line)) == RC_PROTO


@pytest.mark.parametrize(
    "line", ["CONNECT a.example:443 HTTP/1.1", "M" * (METHOD_BYTES_MAX + 1) + " / HTTP/1.1", "A" * 9000 + " / HTTP/1.1"]
)
def test_request_not_done_here_is_unsupported(line):
    assert read_request(request(line=line)) == RC_UNSUPPORTED


@pytest.mark.parametrize("method", ["get", "Get", "GETT", "PROPFIND", "!#$%&'*+-.^_`|~", "M" * METHOD_BYTES_MAX])
def test_request_method_is_any_token_and_kept_as_it_is(method):
    raw = request(line=f"{method} / HTTP/1.1")
    assert (read_request(raw)["method"], read_request(raw)["method_name"]) == (0, method.encode())
    assert http1.rewrite_request(raw) == raw


@pytest.mark.parametrize(
    "line", ["GET / HTTP/2.0", "GET / HTTP/0.9", "GET / HTTP/3.1", "PRI * HTTP/2.0", "CONNECT a:1 HTTP/2.0"]
)
def test_request_of_another_major_version_is_told_so(line):
    assert read_request(request(line=line)) == RC_VERSION


@pytest.mark.parametrize("minor", [2, 9])
def test_request_of_a_later_minor_version_is_taken_as_ours(minor):
    raw = request("Transfer-Encoding: chunked", "Expect: 100-continue", line=f"POST /x HTTP/1.{minor}")
    ours = request("Transfer-Encoding: chunked", "Expect: 100-continue", line="POST /x HTTP/1.1")
    assert {**read_request(raw)} == read_request(ours)
    assert http1.rewrite_request(raw) == ours


CODINGS_NOT_DONE = [
    "gzip", "gzip, chunked", "GZIP ,\tchunked", "identity", "xchunked", "chunkedx", "gzip, deflate",
    "identity, chunked",
]  # fmt: skip


@pytest.mark.parametrize("coding", CODINGS_NOT_DONE)
def test_request_of_a_coding_other_than_chunked_is_unsupported(coding):
    raw = request(f"Transfer-Encoding: {coding}", line="POST / HTTP/1.1")
    assert read_request(raw) == RC_UNSUPPORTED
    assert h11_oracle.refusal(raw) == 501
    field = f"Transfer-Encoding: {coding}"
    assert read_request(request(field, "Content-Length: 3", line="POST / HTTP/1.1")) == RC_PROTO
    assert read_request(request(field, line="POST / HTTP/1.0")) == RC_PROTO
    assert read_request(request(field, "bad line", line="POST / HTTP/1.1")) == RC_PROTO
    assert read_response(response(f"Transfer-Encoding: {coding}")) == RC_UNSUPPORTED


@pytest.mark.parametrize("step_bytes", [1, 100, 100_000])
@pytest.mark.parametrize(
    ("start", "code"),
    [(b"GET /", RC_TARGET), (b"PROPFIND http://a.example/", RC_TARGET), (b"G", RC_UNSUPPORTED), (b"G(", RC_PROTO),
     (b"HTTP/1.1 200 ", RC_TOO_LARGE), (b"GET /\r\nA: ", RC_TOO_LARGE)],
)
def test_head_whose_first_line_has_no_end_is_told_what_is_too_long(start, code, step_bytes):
    assert scan(start + b"a" * 2 * LINE_BYTES_MAX, step_bytes=step_bytes)[0] == code


@pytest.mark.parametrize(
    ("value", "written"), [("1", "0"), ("10", "9"), ("007", "6"), ("999999999", "999999998"), ("9" * 40, "999999998")]
)
@pytest.mark.parametrize("method", ["OPTIONS", "TRACE"])
def test_max_forwards_is_one_less_where_the_visitor_is(method, value, written):
    raw = request(f"max-forwards: {value}", "A: b", line=f"{method} /x HTTP/1.1")
    assert read_request(raw)["max_forwards"] == int(written) + 1
    assert http1.rewrite_request(raw) == raw
    passed_on = http1.rewrite_request(raw, visitor=b"192.0.2.1")
    assert passed_on == request(f"Max-Forwards: {written}", "A: b", *OURS, line=f"{method} /x HTTP/1.1")


@pytest.mark.parametrize(
    "fields",
    [
        ["Max-Forwards: -1"],
        ["Max-Forwards:"],
        ["Max-Forwards: 1, 2"],
        ["Max-Forwards: x"],
        ["Max-Forwards: 1", "Max-Forwards: 1"],
    ],
)
def test_max_forwards_that_is_no_number_is_refused_where_it_counts(fields):
    for method in ("OPTIONS", "TRACE"):
        assert read_request(request(*fields, line=f"{method} / HTTP/1.1")) == RC_PROTO
    raw = request(*fields)
    assert read_request(raw)["max_forwards"] == -1
    assert http1.rewrite_request(raw, visitor=b"192.0.2.1") == request(*fields, *OURS)


BAD_FIELDS = {
    "two lengths": ["Content-Length: 5", "Content-Length: 6"],
    "two equal lengths": ["Content-Length: 5", "Content-Length: 5"],
    "listed lengths": ["Content-Length: 5, 5"],
    "listed different lengths": ["Content-Length: 5,6"],
    "length with plus": ["Content-Length: +5"],
    "length with minus": ["Content-Length: -5"],
    "length with sign of zero": ["Content-Length: -0"],
    "hexadecimal length": ["Content-Length: 0x5"],
    "length with leading zero": ["Content-Length: 05"],
    "length of zeros": ["Content-Length: 00"],
    "length with blank": ["Content-Length: 1 0"],
    "length with underscore": ["Content-Length: 1_0"],
    "length with fraction": ["Content-Length: 5.0"],
    "length with exponent": ["Content-Length: 1e2"],
    "empty length": ["Content-Length:"],
    "length 2^63": [f"Content-Length: {2**63}"],
    "length 2^64": [f"Content-Length: {2**64}"],
    "length 2^64 + 5": [f"Content-Length: {2**64 + 5}"],
    "length of 100 digits": ["Content-Length: " + "9" * 100],
    "length with chunked": ["Content-Length: 5", "Transfer-Encoding: chunked"],
    "chunked with length": ["Transfer-Encoding: chunked", "Content-Length: 5"],
    "chunked with length 0": ["Transfer-Encoding: chunked", "Content-Length: 0"],
    "chunked twice": ["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"],
    "chunked listed twice": ["Transfer-Encoding: chunked, chunked"],
    "chunked not last": ["Transfer-Encoding: chunked, gzip"],
    "chunked not last but one": ["Transfer-Encoding: gzip, chunked, br"],
    "chunked between others": ["Transfer-Encoding: gzip, chunked, chunked"],
    "chunked, identity": ["Transfer-Encoding: chunked, identity"],
    "codings without comma": ["Transfer-Encoding: gzip chunked"],
    "coding with parameter": ["Transfer-Encoding: gzip;q=1, chunked"],
    "chunked in quotes": ['Transfer-Encoding: "chunked"'],
    "chunked with parameter": ["Transfer-Encoding: chunked;q=1"],
    "chunked with comma": ["Transfer-Encoding: chunked,"],
    "comma before chunked": ["Transfer-Encoding: ,chunked"],
    "empty coding": ["Transfer-Encoding:"],
    "chunked behind vertical tab": ["Transfer-Encoding: \x0bchunked"],
    "chunked behind obs-text": ["Transfer-Encoding: \xa0chunked"],
    "chunked folded": ["Transfer-Encoding:\r\n chunked"],
    "blank before colon of coding": ["Transfer-Encoding : chunked"],
    "tab before colon of coding": ["Transfer-Encoding\t: chunked"],
    "obs-fold with blank": ["A: b", " c"],
    "obs-fold with tab": ["A: b", "\tc"],
    "obs-fold of blanks": ["A: b", "  "],
    "bare LF": ["A: b\nC: d"],
    "bare CR": ["A: b\rC: d"],
    "CR before CRLF": ["A: b\r"],
    "NUL in value": ["A: b\x00"],
    "NUL in name": ["A\x00: b"],
    "escape in value": ["A: \x1b[2J"],
    "DEL in value": ["A: \x7f"],
    "space before colon": ["A : b"],
    "space in name": ["A b: c"],
    "leading space": [" A: b"],
    "empty name": [": b"],
    "no colon": ["A"],
    "colon missing with value": ["A b"],
    "name no token": ["A(: b"],
    "name not ASCII": ["\xe4: b"],
    "two hosts": ["Host: a.example"],
    "two other hosts": ["Host: b.example"],
    "connection no token": ["Connection: a b"],
    "connection in quotes": ['Connection: "close"'],
    "connection names host": ["Connection: close, Host"],
    "connection names length": ["Connection: content-length"],
    "connection names coding": ["Connection: Transfer-Encoding"],
}


@pytest.mark.parametrize("fields", BAD_FIELDS.values(), ids=BAD_FIELDS.keys())
@pytest.mark.parametrize("line", ["GET / HTTP/1.1", "POST / HTTP/1.1", "FOO / HTTP/1.1", "GET / HTTP/1.0"])
def test_request_bad_field_is_refused(line, fields):
    assert read_request(request(*fields, line=line)) == RC_PROTO


@pytest.mark.parametrize("fields", [f for n, f in BAD_FIELDS.items() if "host" not in n], ids=lambda f: repr(f)[:60])
def test_request_bad_first_field_is_refused(fields):
    assert read_request(request(*fields, "Host: a.example", host=False)) == RC_PROTO


@pytest.mark.parametrize("line", ["GET / HTTP/1.1", "GET http://a.example/ HTTP/1.1"])
def test_request_without_host_is_refused(line):
    assert read_request(request(line=line, host=False)) == RC_PROTO


def test_request_http10_chunked_is_refused():
    assert read_request(request("Transfer-Encoding: chunked", line="POST / HTTP/1.0")) == RC_PROTO


LETTERS_AND_DIGITS = (string.ascii_letters + string.digits).encode()
TOKEN = LETTERS_AND_DIGITS + b"!#$%&'*+-.^_`|~"


@pytest.mark.parametrize("byte", range(256))
def test_each_byte_is_allowed_where_the_grammar_says(byte):
    c = bytes([byte])
    accepted = {
        "method": not isinstance(http1.parse_request(request(line=b"G" + c + b"T / HTTP/1.1")), int),
        "target": not isinstance(http1.parse_request(request(line=b"GET /a" + c + b"b HTTP/1.1")), int),
        "name": not isinstance(http1.parse_request(request(b"a" + c + b"b: x")), int),
        "value": not isinstance(http1.parse_request(request(b"a: b" + c + b"d")), int),
        "host": read_host(b"a" + c + b"b") == b"a" + c.lower() + b"b",
        "trailer": http1.walk_body(CHUNKED, 0, [b"0\r\na" + c + b"b: x\r\n\r\n"])[2] is True,
        "trailer value": http1.walk_body(CHUNKED, 0, [b"0\r\na: x" + c + b"y\r\n\r\n"])[2] is True,
        "extension": http1.walk_body(CHUNKED, 0, [b"0;a" + c + b"b\r\n\r\n"])[2] is True,
        "chunk size": http1.walk_body(CHUNKED, 0, [b"0" + c + b"\r\n\r\n"])[2] is True,
    }
    text = c in b"\t " or 33 <= byte <= 126 or byte >= 128
    assert accepted == {
        "method": c in TOKEN,
        "target": 33 <= byte <= 126 and c != b"#",
        "name": c in TOKEN or c == b":",  # "a:b: x" is a field with the name "a"
        "value": text,
        "host": c in LETTERS_AND_DIGITS + b"-._",
        "trailer": c in TOKEN or c == b":",
        "trailer value": text,
        "extension": c in TOKEN + b"=;",
        "chunk size": c == b"0",
    }


BAD_HOSTS = {
    "empty": b"",
    "dot": b".",
    "two dots at the end": b"a.example..",
    "empty label": b"a..example",
    "leading dot": b".a.example",
    "blank": b"a.example b.example",
    "list": b"a.example, b.example",
    "userinfo": b"u@a.example",
    "path": b"a.example/x",
    "query": b"a.example?x",
    "backslash": b"a.example\\",
    "percent": b"a%2eexample",
    "not ASCII": "bücher.example".encode(),
    "fullwidth dot": "a。example".encode(),
    "port no digits": b"a.example:x",
    "port with plus": b"a.example:+80",
    "port too large": b"a.example:65536",
    "port too long": b"a.example:000080",
    "two ports": b"a.example:80:80",
    "port alone": b":80",
    "hyphen first": b"-a.example",
    "hyphen last": b"a-.example",
    "hyphen at the end": b"a.example-",
    "label of 64": b"x" * 64 + b".example",
    "name of 254": b".".join([b"x" * 50] * 5),
    "literal open": b"[::1",
    "literal empty": b"[]",
    "literal not closed before port": b"[::1:80",
    "literal of name": b"[a.example]",
    "literal with zone": b"[fe80::1%25eth0]",
    "literal with NUL": b"[::1\x00]",
    "literal IPvFuture": b"[v1.a]",
    "text behind literal": b"[::1]a",
    "IPv6 without brackets": b"::1",
    "long literal": b"[" + b"0:" * 40 + b"1]",
}


@pytest.mark.parametrize("host", BAD_HOSTS.values(), ids=BAD_HOSTS.keys())
def test_host_bad_is_refused(host):
    assert read_host(host) == RC_PROTO
    assert read_request(request(b"Host: " + host, host=False)) == RC_PROTO


@pytest.mark.parametrize(
    ("host", "canonical"),
    [
        (b"A.Example", b"a.example"),
        (b"a.example.", b"a.example"),
        (b"a.example.:8080", b"a.example"),
        (b"a.example:", b"a.example"),
        (b"a.example:65535", b"a.example"),
        (b"a_b.example", b"a_b.example"),
        (b"xn--bcher-kva.example", b"xn--bcher-kva.example"),
        (b"localhost", b"localhost"),
        (b"127.0.0.1:80", b"127.0.0.1"),
        (b"[::1]:80", b"[::1]"),
        (b"[0:0:0:0:0:0:0:1]", b"[::1]"),
        (b"[2001:DB8::A]", b"[2001:db8::a]"),
        (b"[::ffff:192.0.2.1]", b"[::ffff:192.0.2.1]"),
        (b"x" * 63 + b".example", b"x" * 63 + b".example"),
        (b"x." * 126 + b"x", b"x." * 126 + b"x"),
        (b"x." * 126 + b"x.", b"x." * 126 + b"x"),
    ],
)
def test_host_good_is_canonical(host, canonical):
    assert read_host(host) == canonical
    assert read_request(request(b"Host: " + host, host=False))["host"] == canonical


@pytest.mark.parametrize(
    ("target", "host", "path"),
    [
        (b"http://a.example/x?y", b"a.example", b"/x?y"),
        (b"HTTP://A.Example./x", b"a.example", b"/x"),
        (b"http://a.example", b"a.example:80", b""),
        (b"http://a.example:80?x", b"a.example", b"?x"),
        (b"https://a.example:443/", b"a.example", b"/"),
        (b"http://a.example:8080//x", b"a.example:8080", b"//x"),
        (b"http://[::1]/x", b"[0::1]", b"/x"),
    ],
)
def test_request_absolute_form_that_agrees_gives_origin_form(target, host, path):
    head = read_request(request(b"Host: " + host, line=b"GET " + target + b" HTTP/1.1", host=False))
    assert (head["target"], head["path"], head["host"]) == (target, path, read_host(host))


def test_request_http10_absolute_without_host_takes_the_authority():
    assert read_request(request(line="GET http://A.example:80/x HTTP/1.0", host=False))["host"] == b"a.example"


def test_request_field_count_limit_is_exact():
    assert len(read_request(request(*["A: b"] * (FIELD_COUNT_MAX - 1)))["fields"]) == FIELD_COUNT_MAX
    assert read_request(request(*["A: b"] * FIELD_COUNT_MAX)) == RC_TOO_LARGE


def test_head_over_a_link_may_be_larger_by_what_its_other_end_adds():
    added_count, added_bytes = 8, 1024
    fits = request(*["A: b"] * (FIELD_COUNT_MAX + added_count - 1))
    assert len(http1.parse_request(fits, over_link=True)["fields"]) == FIELD_COUNT_MAX + added_count
    assert http1.parse_request(request(*["A: b"] * (FIELD_COUNT_MAX + added_count)), over_link=True) == RC_TOO_LARGE
    size = HEAD_BYTES_MAX + added_bytes
    lines = b"GET / HTTP/1.1\r\n" + (b"A: " + b"v" * 7995 + b"\r\n") * 4
    for spare, result in ((0, size), (1, RC_TOO_LARGE)):
        head = lines + b"A: " + b"v" * (size - len(lines) - 7 + spare) + b"\r\n\r\n"
        assert http1.head_end(head, over_link=True)[0] == result
        assert http1.head_end(head)[0] == RC_TOO_LARGE


def test_request_parsed_without_search_keeps_the_limits():
    assert http1.parse_request(request("A: " + "b" * LINE_BYTES_MAX)) == RC_TOO_LARGE
    assert http1.parse_request(request(line="GET /" + "b" * LINE_BYTES_MAX + " HTTP/1.1")) == RC_TARGET
    assert http1.parse_request(request(*["A: " + "b" * 8000] * 5)) == RC_TOO_LARGE
    assert http1.parse_response(response("A: " + "b" * LINE_BYTES_MAX)) == RC_TOO_LARGE
    assert http1.parse_response(response(line="HTTP/1.1 200 " + "b" * LINE_BYTES_MAX)) == RC_TOO_LARGE
    assert http1.parse_response(response(*["A: " + "b" * 8000] * 5)) == RC_TOO_LARGE


@pytest.mark.parametrize(
    ("parse", "start", "end", "in_field"),
    [
        (http1.parse_request, b"A: ", b"", True),
        (http1.parse_response, b"A: ", b"", True),
        (http1.parse_request, b"GET /", b" HTTP/1.1", False),
        (http1.parse_response, b"HTTP/1.1 200 ", b"", False),
    ],
)
def test_parser_line_limit_is_exact(parse, start, end, in_field):
    def head(line_bytes: int) -> bytes:
        line = start + b"b" * (line_bytes - len(start) - len(end) - 2) + end
        if parse is http1.parse_request:
            return request(line) if in_field else request(line=line)
        return response(line) if in_field else response(line=line)

    assert isinstance(parse(head(LINE_BYTES_MAX)), dict)
    assert parse(head(LINE_BYTES_MAX + 1)) == (RC_TARGET if start == b"GET /" else RC_TOO_LARGE)


@pytest.mark.parametrize("cut", range(len(WHOLE)))
def test_request_cut_or_with_more_behind_is_refused(cut):
    assert http1.parse_request(WHOLE[:cut]) == RC_PROTO
    assert http1.parse_request(WHOLE + WHOLE[cut:]) == RC_PROTO


@pytest.mark.parametrize(
    ("line", "fields", "keep_alive"),
    [
        ("GET / HTTP/1.1", [], True),
        ("GET / HTTP/1.1", ["Connection: close"], False),
        ("GET / HTTP/1.1", ["Connection: x, CLOSE ,"], False),
        ("GET / HTTP/1.1", ["Connection: x", "Connection: close"], False),
        ("GET / HTTP/1.1", ["Connection: keep-alive, close"], False),
        ("GET / HTTP/1.1", ["Connection: closed"], True),
        ("GET / HTTP/1.0", [], False),
        ("GET / HTTP/1.0", ["Connection: Keep-Alive"], True),
        ("GET / HTTP/1.0", ["Connection: keep-alive, close"], False),
    ],
)
def test_keep_alive_follows_version_and_connection(line, fields, keep_alive):
    assert read_request(request(*fields, line=line))["keep_alive"] is keep_alive
    status = line.replace("GET / ", "") + " 200 OK"
    assert read_response(response("Content-Length: 1", *fields, line=status))["keep_alive"] is keep_alive


@pytest.mark.parametrize(
    ("fields", "upgrade"),
    [
        (["Connection: Upgrade", "Upgrade: websocket"], True),
        (["Connection: keep-alive, upgrade", "Upgrade: websocket"], True),
        (["Upgrade: websocket"], False),
        (["Connection: upgrade"], False),
        (["Connection: upgrade", "Upgrade:"], False),
        (["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"], False),
        (["Connection: upgrade", "Upgrade: websocket, h2c"], False),
        (["Connection: upgrade", "Upgrade: HTTP/2.0"], False),
        (["Connection: upgrade", "Upgrade: TLS/1.0"], False),
    ],
)
def test_upgrade_needs_both_fields_and_another_protocol(fields, upgrade):
    assert read_request(request(*fields))["upgrade"] is upgrade
    assert read_request(request(*fields, line="GET / HTTP/1.0"))["upgrade"] is False
    assert (b"\r\nUpgrade: websocket\r\n" in http1.rewrite_request(request(*fields))) is upgrade
    switched = read_response(response(*fields, line="HTTP/1.1 101 Switching Protocols"))
    assert (switched["upgrade"] if upgrade else switched) == (True if upgrade else RC_PROTO)


@pytest.mark.parametrize(
    ("value", "continues"), [("100-continue", True), ("100-Continue", True), ("200-ok", False), ("", False)]
)
def test_expect_other_than_continue_is_left_to_the_upstream(value, continues):
    raw = request(f"Expect: {value}", "Content-Length: 1")
    assert read_request(raw)["expect_continue"] is continues
    assert http1.rewrite_request(raw) == raw


def test_expect_in_http10_is_ignored_and_dropped():
    raw = request("Expect: 100-continue", line="GET / HTTP/1.0")
    assert read_request(raw)["expect_continue"] is False
    assert http1.rewrite_request(raw) == request()


@pytest.mark.parametrize("nominated_count", [32, 33])
def test_connection_nominations_are_bounded(nominated_count):
    head = read_request(request("Connection: " + ",".join(f"n{i}" for i in range(nominated_count))))
    assert head == RC_TOO_LARGE if nominated_count > 32 else head["keep_alive"]


# --- responses

BAD_STATUS_LINES = {
    "HTTP/0.9": b"hello",
    "lower case": b"http/1.1 200 OK",
    "no version": b"200 OK",
    "two digits": b"HTTP/1.1 20 OK",
    "four digits": b"HTTP/1.1 2000 OK",
    "sign": b"HTTP/1.1 +20 OK",
    "leading zero": b"HTTP/1.1 099 OK",
    "letters": b"HTTP/1.1 2xx OK",
    "no status": b"HTTP/1.1 ",
    "version alone": b"HTTP/1.1",
    "two blanks": b"HTTP/1.1  200 OK",
    "tab": b"HTTP/1.1\t200 OK",
    "reason without blank": b"HTTP/1.1 200OK",
    "control in reason": b"HTTP/1.1 200 O\x01K",
    "NUL in reason": b"HTTP/1.1 200 O\x00K",
    "ICY": b"ICY 200 OK",
}


@pytest.mark.parametrize("line", BAD_STATUS_LINES.values(), ids=BAD_STATUS_LINES.keys())
def test_response_bad_line_is_refused(line):
    assert read_response(response(line=line)) == RC_PROTO


@pytest.mark.parametrize("line", ["HTTP/2.0 200 OK", "HTTP/0.9 200 OK"])
def test_response_of_another_major_version_is_refused(line):
    assert read_response(response(line=line)) == RC_VERSION


def test_response_of_a_later_minor_version_is_taken_as_ours():
    raw = response("Content-Length: 5", "A: b", line="HTTP/1.2 200 OK")
    assert http1.rewrite_response(raw) == response("Content-Length: 5", "A: b")


def test_write_request_via_is_added_behind_those_received():
    raw = request("Via: 1.0 a", "A: b")
    assert http1.rewrite_request(raw) == raw
    assert http1.rewrite_request(raw, via=b"me") == request("Via: 1.0 a", "A: b", "Via: 1.1 me")
    old = request("A: b", line="GET / HTTP/1.0")
    assert http1.rewrite_request(old, via=b"me") == request("A: b", "Via: 1.0 me")
    assert http1.rewrite_request(request("Connection: via", "Via: 1.1 a")) == request("Via: 1.1 a")
    assert http1.came_through(http1.rewrite_request(raw, via=b"me"), b"me") is True
    assert http1.came_through(raw, b"me") is False


GAPS = {
    "one": ["A : b"],
    "several": ["A \t : b", "C: d", "E\t:f"],
    "of a field of ours": ["A: b", "Content-Length : 5", "Connection : close", "C : d"],
    "of a coding": ["Transfer-Encoding\t: chunked", "A : b"],
    "of an upgrade": ["Connection : upgrade", "Upgrade : websocket", "A : b"],
    "first and last": ["X-Last :"],
}


@pytest.mark.parametrize("fields", GAPS.values(), ids=GAPS.keys())
def test_response_blanks_before_a_colon_are_taken_off(fields):
    line = "HTTP/1.1 101 Word" if "upgrade" in fields[0] else "HTTP/1.1 200 OK"
    tight = [re.sub(r"[ \t]+:", ":", field, count=1) for field in fields]
    assert http1.rewrite_response(response(*fields, line=line)) == http1.rewrite_response(response(*tight, line=line))
    before, after = (read_response(response(*each, line=line)) for each in (fields, tight))
    assert [field[:2] for field in before["fields"]] == [field[:2] for field in after["fields"]]
    assert before["body"] == after["body"]


@pytest.mark.parametrize("field", ["A b : c", " : b", " A : b", "A :", "A \x01: b"])
def test_response_blank_elsewhere_in_a_name_is_refused(field):
    expected = dict if field == "A :" else int
    assert isinstance(read_response(response("Content-Length: 5", field)), expected)


def test_response_without_date_gets_one_and_another_keeps_its_own():
    date = b"Sun, 06 Nov 1994 08:49:37 GMT"
    raw = response("Content-Length: 5", "A: b")
    stamped = response("Content-Length: 5", "A: b", "Date: " + date.decode())
    assert http1.rewrite_response(raw, date=date) == stamped
    assert http1.rewrite_response(stamped, date=b"Mon, 07 Nov 1994 08:49:37 GMT") == stamped
    interim = response("A: b", line="HTTP/1.1 103 Early Hints")
    assert http1.rewrite_response(interim, date=date) == interim


BAD_RESPONSE_FIELDS = [f for n, f in BAD_FIELDS.items() if "hosts" not in n and "before colon" not in n]


@pytest.mark.parametrize("fields", BAD_RESPONSE_FIELDS, ids=lambda f: repr(f)[:60])
@pytest.mark.parametrize("line", ["HTTP/1.1 200 OK", "HTTP/1.0 200 OK", "HTTP/1.1 304 Not Modified"])
def test_response_bad_field_is_refused(line, fields):
    assert read_response(response(*fields, line=line)) == RC_PROTO
    assert read_response(response(*fields, line=line), HEAD) == RC_PROTO


@pytest.mark.parametrize("cut", range(0, 60))
def test_response_cut_is_refused(cut):
    whole = response("Content-Length: 5", "A: " + "b" * 40)
    assert http1.parse_response(whole[:cut]) == RC_PROTO


@pytest.mark.parametrize(
    ("status", "method", "fields", "body", "keep_alive"),
    [
        (200, GET, ["Content-Length: 5"], (LENGTH, 5), True),
        (200, GET, [f"Content-Length: {INT64_MAX}"], (LENGTH, INT64_MAX), True),
        (200, GET, ["Content-Length: 0"], (NONE, 0), True),
        (200, GET, ["Transfer-Encoding: Chunked"], (CHUNKED, 0), True),
        (200, GET, [], (UNTIL_CLOSE, 0), False),
        (500, GET, [], (UNTIL_CLOSE, 0), False),
        (999, GET, [], (UNTIL_CLOSE, 0), False),
        (200, HEAD, ["Content-Length: 5"], (NONE, 0), True),
        (200, HEAD, ["Transfer-Encoding: chunked"], (NONE, 0), True),
        (200, HEAD, [], (NONE, 0), True),
        (304, GET, ["Content-Length: 5"], (NONE, 0), True),
        (304, GET, [], (NONE, 0), True),
        (204, GET, [], (NONE, 0), True),
        (204, GET, ["Content-Length: 0"], (NONE, 0), True),
        (204, GET, ["Content-Length: 5"], (NONE, 0), False),
        (204, GET, ["Transfer-Encoding: chunked"], (NONE, 0), False),
        (100, GET, [], (NONE, 0), True),
        (103, GET, ["Link: </a>"], (NONE, 0), True),
        (200, CONNECT, ["Content-Length: 5"], (NONE, 0), True),
        (404, CONNECT, ["Content-Length: 5"], (LENGTH, 5), True),
    ],
)
def test_response_body_follows_status_method_and_fields(status, method, fields, body, keep_alive):
    head = read_response(response(*fields, line=f"HTTP/1.1 {status} Word"), method)
    assert (head["status"], head["reason"], head["body"], head["keep_alive"]) == (status, b"Word", body, keep_alive)


@pytest.mark.parametrize("field", ["Content-Length: 5", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("status", [100, 101, 103])
def test_response_interim_with_body_is_refused(status, field):
    fields = [field, "Connection: upgrade", "Upgrade: websocket"]
    assert read_response(response(*fields, line=f"HTTP/1.1 {status} Word")) == RC_PROTO


def test_response_101_in_http10_is_refused():
    assert read_response(response("Connection: upgrade", "Upgrade: websocket", line="HTTP/1.0 101 Word")) == RC_PROTO


@pytest.mark.parametrize(
    ("line", "reason"), [("HTTP/1.1 200", b""), ("HTTP/1.1 200 ", b""), ("HTTP/1.1 200 O K\t\xe4", b"O K\t\xe4")]
)
def test_response_reason_may_be_empty_or_anything_printable(line, reason):
    assert read_response(response("Content-Length: 1", line=line))["reason"] == reason


@pytest.mark.parametrize(
    ("fields", "has_date"),
    [(["Date: x"], True), (["dATE:x"], True), ([], False), (["Date: x", "Connection: date"], False)],
)
def test_response_date_is_noticed(fields, has_date):
    assert read_response(response(*fields))["has_date"] is has_date


# --- bodies

PLAIN = b"5\r\nhello\r\n0\r\n\r\n"
CHUNKED_BODIES = {  # as received, as passed on, the data alone
    "one chunk": (PLAIN, PLAIN, b"hello"),
    "nothing": (b"0\r\n\r\n", b"0\r\n\r\n", b""),
    "many zeros": (b"0000\r\n\r\n", b"0000\r\n\r\n", b""),
    "leading zeros": (b"00" + PLAIN, b"00" + PLAIN, b"hello"),
    "16 digits": (b"0" * 15 + PLAIN, b"0" * 15 + PLAIN, b"hello"),
    "upper case": (b"B\r\n0123456789A\r\n" + PLAIN, b"B\r\n0123456789A\r\n" + PLAIN, b"0123456789Ahello"),
    "lower case": (b"a\r\n0123456789\r\n" + PLAIN, b"a\r\n0123456789\r\n" + PLAIN, b"0123456789hello"),
    "CRLF in data": (b"4\r\n\r\n\r\n\r\n" + PLAIN, b"4\r\n\r\n\r\n\r\n" + PLAIN, b"\r\n\r\nhello"),
    "extension": (b"5;a=b\r\nhello\r\n0;c\r\n\r\n", PLAIN, b"hello"),
    "quoted extension": (b'5;a="b c"\r\nhello\r\n0\r\n\r\n', PLAIN, b"hello"),
    "extensions": (b'5;a;b=c;d="\\"\xff;\t";e\r\nhello\r\n0\r\n\r\n', PLAIN, b"hello"),
    "extension with bad blanks": (b'5; a\t= b ; c="d" ;e\r\nhello\r\n0\r\n\r\n', PLAIN, b"hello"),
    "trailers": (b"5\r\nhello\r\n0\r\nA: b\r\nContent-Length: 9\r\n\r\n", PLAIN, b"hello"),
    "empty trailer": (b"0\r\nA:\r\n\r\n", b"0\r\n\r\n", b""),
    "extension and trailer": (b"5;x\r\nhello\r\n0;y\r\nA: \tb\r\n\r\n", PLAIN, b"hello"),
}


@pytest.mark.parametrize(("raw", "expected", "data"), CHUNKED_BODIES.values(), ids=CHUNKED_BODIES.keys())
def test_chunked_good_is_passed_on_without_extensions_and_trailers(raw, expected, data):
    for step_bytes in (1, 2, 3, 5, 1000):
        chunks = [raw[i : i + step_bytes] for i in range(0, len(raw), step_bytes)]
        assert http1.walk_body(CHUNKED, 0, [*chunks, b"GET"]) == (expected, len(raw), True)
        assert http1.walk_body(CHUNKED, 0, [*chunks, b"GET"], strip=1) == (data, len(raw), True)
    for cut in range(len(raw)):
        assert http1.walk_body(CHUNKED, 0, [raw[:cut], raw[cut:] + b"next"]) == (expected, len(raw), True)
        assert http1.walk_body(CHUNKED, 0, [raw[:cut]])[1:] == (cut, False)
    oracle = h11_oracle.read_request(request("Transfer-Encoding: chunked") + raw + b"next")
    assert oracle == h11_oracle.Message(data, len(request("Transfer-Encoding: chunked")) + len(raw), True)
    assert h11_oracle.read_request(request("Transfer-Encoding: chunked") + expected).data == data


BAD_CHUNKED = {
    "plus": b"+5\r\nhello\r\n0\r\n\r\n",
    "minus": b"-5\r\nhello\r\n0\r\n\r\n",
    "0x": b"0x5\r\nhello\r\n0\r\n\r\n",
    "blank before": b" 5\r\nhello\r\n0\r\n\r\n",
    "blank behind": b"5 \r\nhello\r\n0\r\n\r\n",
    "tab behind": b"5\t\r\nhello\r\n0\r\n\r\n",
    "blank before extension": b"5 ;a\r\nhello\r\n0\r\n\r\n",
    "underscore": b"1_0\r\nhello\r\n0\r\n\r\n",
    "letter g": b"g\r\nhello\r\n0\r\n\r\n",
    "no size": b"\r\nhello\r\n0\r\n\r\n",
    "extension without size": b";a\r\nhello\r\n0\r\n\r\n",
    "17 digits": b"00000000000000005\r\nhello\r\n0\r\n\r\n",
    "2^63": b"8000000000000000\r\nhello",
    "2^64 - 1": b"ffffffffffffffff\r\nhello",
    "size ends with LF": b"5\nhello\r\n0\r\n\r\n",
    "size ends with CR": b"5\rhello\r\n0\r\n\r\n",
    "extension ends with LF": b"5;a\nhello\r\n0\r\n\r\n",
    "CR in extension": b"5;a\rb\r\nhello\r\n0\r\n\r\n",
    "empty extension": b"5;\r\nhello\r\n0\r\n\r\n",
    "extension of blanks": b"5; \r\nhello\r\n0\r\n\r\n",
    "extension without name": b"5;=b\r\nhello\r\n0\r\n\r\n",
    "extension without value": b"5;a=\r\nhello\r\n0\r\n\r\n",
    "extension with bracket": b"5;bad[=x\r\nhello\r\n0\r\n\r\n",
    "extension with bracket in value": b"5;a=x]\r\nhello\r\n0\r\n\r\n",
    "extension with open quote": b'5;a="b\r\nhello\r\n0\r\n\r\n',
    "extension with quote escaped open": b'5;a="b\\"\r\nhello\r\n0\r\n\r\n',
    "extension with text behind quote": b'5;a="b"c\r\nhello\r\n0\r\n\r\n',
    "extension with two values": b"5;a=b=c\r\nhello\r\n0\r\n\r\n",
    "extension with two words": b"5;a b\r\nhello\r\n0\r\n\r\n",
    "extension with blank at the end": b"5;a=b \r\nhello\r\n0\r\n\r\n",
    "second extension empty": b"5;a;\r\nhello\r\n0\r\n\r\n",
    "extension with CR in quotes": b'5;a="\r"\r\nhello\r\n0\r\n\r\n',
    "NUL in extension": b"5;\x00\r\nhello\r\n0\r\n\r\n",
    "data too long": b"4\r\nhello\r\n0\r\n\r\n",
    "data too short": b"6\r\nhello\r\n0\r\n\r\n",
    "data ends with LF": b"5\r\nhello\n0\r\n\r\n",
    "data ends with CR": b"5\r\nhello\r0\r\n\r\n",
    "data ends with nothing": b"5\r\nhello0\r\n\r\n",
    "end with LF": b"0\r\n\n",
    "end with CR": b"0\r\n\rX",
    "trailer ends with LF": b"0\r\nA: b\n\r\n",
    "trailer with CR": b"0\r\nA: b\rc\r\n\r\n",
    "trailer with NUL": b"0\r\nA: \x00\r\n\r\n",
    "trailer folded": b"0\r\nA: b\r\n c\r\n\r\n",
    "trailer starts with blank": b"0\r\n A: b\r\n\r\n",
    "trailer without colon": b"0\r\nA\r\n\r\n",
    "trailer without name": b"0\r\n: b\r\n\r\n",
    "trailer with blank before colon": b"0\r\nA : b\r\n\r\n",
}


@pytest.mark.parametrize("raw", BAD_CHUNKED.values(), ids=BAD_CHUNKED.keys())
def test_chunked_bad_is_refused_at_the_same_byte(raw):
    passed, taken, result = http1.walk_body(CHUNKED, 0, [raw])
    assert result == RC_PROTO
    assert http1.walk_body(CHUNKED, 0, [raw[i : i + 1] for i in range(len(raw))]) == (passed, taken, result)
    for cut in range(len(raw)):
        assert http1.walk_body(CHUNKED, 0, [raw[:cut], raw[cut:]]) == (passed, taken, result)


def test_chunked_blanks_before_a_trailers_colon_are_taken_in_responses_alone():
    raw = b"0\r\nA : 1\r\nB \t: 2\r\n\r\n"
    for cut in range(len(raw) + 1):
        assert http1.walk_body(CHUNKED, 0, [raw[:cut], raw[cut:]], is_response=True) == (b"0\r\n\r\n", len(raw), True)
    assert http1.walk_body(CHUNKED, 0, [raw])[1:] == (4, RC_PROTO)
    for bad in (b"0\r\n : 1\r\n\r\n", b"0\r\nA b: 1\r\n\r\n", b"0\r\nA \r\n\r\n"):
        assert http1.walk_body(CHUNKED, 0, [bad], is_response=True)[2] == RC_PROTO


def test_chunked_extensions_and_trailers_are_bounded_together():
    chunk, trailer = b"1;" + b"e" * 1000 + b"\r\nx\r\n", b"A: " + b"t" * 1000 + b"\r\n"
    left = STEP_FIELD_BYTES_MAX - 1001 - len(trailer)
    last = b"B:" + b"t" * (left - 4) + b"\r\n"
    assert http1.walk_body(CHUNKED, 0, [chunk + b"0\r\n" + trailer + last + b"\r\n"])[2] is True
    assert http1.walk_body(CHUNKED, 0, [chunk + b"0\r\n" + trailer + b"t" + last + b"\r\n"])[2] == RC_PROTO


def test_chunked_of_endless_extension_is_refused_after_the_bound():
    assert http1.walk_body(CHUNKED, 0, [b"1;" + b"e" * 100_000])[1:] == (1 + STEP_FIELD_BYTES_MAX, RC_PROTO)


@pytest.mark.parametrize("step_bytes", [1, 3, 1000])
def test_length_body_takes_its_bytes_and_no_more(step_bytes):
    raw = b"0123456789GET / HTTP/1.1"
    chunks = [raw[i : i + step_bytes] for i in range(0, len(raw), step_bytes)]
    assert http1.walk_body(LENGTH, 10, chunks) == (raw[:10], 10, True)
    assert http1.walk_body(LENGTH, 100, chunks) == (raw, len(raw), False)


def test_body_none_takes_nothing_and_until_close_everything():
    assert http1.walk_body(NONE, 0, [b"x"]) == (b"", 0, True)
    assert http1.walk_body(UNTIL_CLOSE, 0, [b"ab", b"c"]) == (b"abc", 3, False)


# --- writing

FORWARDED = [
    "X-Forwarded-For: 6.6.6.6",
    "x-forwarded-proto: https",
    "X-Forwarded-Host: evil.example",
    "X-Forwarded-Port: 1",
    "X-Forwarded: for=6.6.6.6",
    "X-Real-IP: 6.6.6.6",
    "Forwarded: for=6.6.6.6",
    "X_Forwarded_For: 6.6.6.6",
    "X-Forwarded_For: 6.6.6.6",
    "X_FORWARDED_PROTO: https",
    "X_Real_IP: 6.6.6.6",
]
OURS = [
    "X-Forwarded-For: 192.0.2.1",
    "X-Real-IP: 192.0.2.1",
    "X-Forwarded-Proto: http",
    "X-Forwarded-Host: a.example",
]


def test_write_request_untouched_is_the_same():
    raw = request("Accept: */*", "A:b", "a-Forwarded-For: x", "Content-Length: 5", line="POST /x?y HTTP/1.1")
    assert http1.rewrite_request(raw) == raw


@pytest.mark.parametrize(
    "forwarded", [*[[f] for f in FORWARDED], FORWARDED], ids=lambda f: f[0] if len(f) == 1 else "all"
)
def test_write_request_forwarded_fields_are_replaced(forwarded):
    raw = request("Accept: */*", *forwarded, "Last: 1")
    assert http1.rewrite_request(raw, visitor=b"192.0.2.1") == request("Accept: */*", "Last: 1", *OURS)
    assert http1.rewrite_request(raw) == raw


def test_write_request_over_tls_says_https():
    assert b"\r\nX-Forwarded-Proto: https\r\n" in http1.rewrite_request(request(), visitor=b"::1", secure=True)


def test_write_request_nominated_forwarded_field_is_ours():
    raw = request("Connection: X-Forwarded-For, X-Real-IP", "X-Forwarded-For: 6.6.6.6")
    assert http1.rewrite_request(raw, visitor=b"192.0.2.1") == request(*OURS)


HOP_BY_HOP = [
    "Connection: keep-alive",
    "Keep-Alive: timeout=5",
    "Proxy-Connection: keep-alive",
    "Proxy-Authenticate: x",
    "Proxy-Authorization: x",
    "Proxy: http://evil.example",
    "TE: trailers",
    "Trailer: A",
    "Upgrade: websocket",
]


@pytest.mark.parametrize("field", HOP_BY_HOP)
@pytest.mark.parametrize("around", [[], ["A: b"]])
def test_write_hop_by_hop_field_is_dropped(field, around):
    assert http1.rewrite_request(request(*around, field, *around)) == request(*around, *around)
    kept = ["Content-Length: 5", *around, *around]
    assert http1.rewrite_response(response("Content-Length: 5", *around, field, *around)) == response(*kept)


def test_write_nominated_fields_are_dropped_before_and_behind():
    raw = request("X-A: 1", "X-AB: 2", "Connection: x-a, X-B", "x-b: 3", "X-A: 4", "C: 5")
    assert http1.rewrite_request(raw) == request("X-AB: 2", "C: 5")
    raw = response("X-A: 1", "Content-Length: 5", "Connection: x-a", "x_a: 2")
    assert http1.rewrite_response(raw) == response("Content-Length: 5", "x_a: 2")


def test_write_nominated_name_differing_in_more_than_case_is_kept():
    raw = request("Connection: a^b", "A~B: 1", "a^B: 2")
    assert http1.rewrite_request(raw) == request("A~B: 1")


def test_write_framing_is_in_our_spelling():
    assert http1.rewrite_request(request("content-length:\t 5 \t", "A: b")) == request("Content-Length: 5", "A: b")
    raw = request("TRANSFER-ENCODING:CHUNKED\t", "A: b")
    assert http1.rewrite_request(raw) == request("Transfer-Encoding: chunked", "A: b")


def test_write_request_upgrade_is_kept():
    raw = request("Connection: keep-alive, Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")
    expected = request("Upgrade: websocket", "Sec-WebSocket-Version: 13", "Connection: upgrade")
    assert http1.rewrite_request(raw) == expected


@pytest.mark.parametrize(
    ("line", "written"),
    [
        ("GET http://a.example HTTP/1.1", "GET / HTTP/1.1"),
        ("GET http://a.example?x HTTP/1.1", "GET /?x HTTP/1.1"),
        ("GET http://a.example/x HTTP/1.1", "GET /x HTTP/1.1"),
        ("OPTIONS http://a.example HTTP/1.1", "OPTIONS * HTTP/1.1"),
        ("OPTIONS http://a.example/ HTTP/1.1", "OPTIONS / HTTP/1.1"),
        ("OPTIONS * HTTP/1.1", "OPTIONS * HTTP/1.1"),
        ("GET /x HTTP/1.0", "GET /x HTTP/1.1"),
    ],
)
def test_write_request_line_has_origin_form_and_our_version(line, written):
    assert http1.rewrite_request(request("A: b", line=line)) == request("A: b", line=written)


def test_write_request_host_is_replaced_or_added():
    raw = request("A: b", "Host: a.example:8080", "C: d", host=False)
    assert http1.rewrite_request(raw) == raw
    assert http1.rewrite_request(raw, host=b"up:1") == request("A: b", "Host: up:1", "C: d", host=False)
    old = request("A: b", line="GET / HTTP/1.0", host=False)
    assert http1.rewrite_request(old) == request("A: b", "Host: ", host=False)
    assert http1.rewrite_request(old, host=b"up") == request("A: b", "Host: up", host=False)
    absolute = request("A: b", line="GET http://A.example/ HTTP/1.0", host=False)
    assert http1.rewrite_request(absolute) == request("A: b", "Host: a.example", host=False)


def test_write_request_without_room_is_a_limit_and_1024_more_suffice():
    raw = request("TE: x", *["A: b"] * 50)
    visitor = b"ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255"
    assert http1.rewrite_request(raw, host=b"h" * 260, visitor=visitor, secure=True, room=len(raw) + 1024)
    for room in (0, 1, len(raw), len(raw) + 100):
        assert http1.rewrite_request(raw, visitor=visitor, room=room) == RC_LIMIT
        assert http1.rewrite_response(response("A: " + "b" * len(raw)), room=room) == RC_LIMIT


@pytest.mark.parametrize(
    ("keep_alive", "to_minor", "added"),
    [
        (True, 1, []),
        (False, 1, ["Connection: close"]),
        (True, 0, ["Connection: keep-alive"]),
        (False, 0, ["Connection: close"]),
    ],
)
def test_write_response_says_what_becomes_of_the_conn(keep_alive, to_minor, added):
    for line in ("HTTP/1.1 200 OK", "HTTP/1.1 200 ", "HTTP/1.1 200", "HTTP/1.0 200 OK", "HTTP/1.0 200"):
        for connection in ([], ["Connection: close"], ["Connection: keep-alive", "Keep-Alive: timeout=1"]):
            raw = response("A: b", *connection, "Content-Length: 5", line=line)
            reason = "OK" if line.endswith("OK") else ""
            expected = response("A: b", "Content-Length: 5", *added, line=f"HTTP/1.1 200 {reason}")
            assert http1.rewrite_response(raw, keep_alive=keep_alive, to_minor=to_minor) == expected


def test_write_response_that_ends_with_the_conn_says_close():
    assert http1.rewrite_response(response("A: b")) == response("A: b", "Connection: close")
    chunked = response("Transfer-Encoding: chunked", "A: b")
    assert http1.rewrite_response(chunked) == chunked
    assert http1.rewrite_response(chunked, to_minor=0) == response("A: b", "Connection: close")


def test_write_response_upgrade_is_kept_in_101_and_426_only():
    fields = ["Connection: upgrade", "Upgrade: websocket"]
    switched = http1.rewrite_response(response(*fields, line="HTTP/1.1 101 Word"), keep_alive=False)
    assert switched == response("Upgrade: websocket", "Connection: upgrade", line="HTTP/1.1 101 Word")
    needed = response(*fields, "Content-Length: 0", line="HTTP/1.1 426 Word")
    assert http1.rewrite_response(needed, keep_alive=False) == response(
        "Upgrade: websocket", "Content-Length: 0", "Connection: upgrade, close", line="HTTP/1.1 426 Word"
    )
    assert http1.rewrite_response(response(*fields, "Content-Length: 0")) == response("Content-Length: 0")


@pytest.mark.parametrize("status", [100, 103, 204])
def test_write_response_without_body_announces_none(status):
    line = f"HTTP/1.1 {status} Word"
    raw = response("A: b", "Content-Length: 0", line=line)
    assert http1.rewrite_response(raw) == response("A: b", line=line)
    added = ["Connection: close"] if status == 204 else []
    assert http1.rewrite_response(raw, keep_alive=False) == response("A: b", *added, line=line)


def test_write_response_to_head_keeps_the_length():
    raw = response("Content-Length: 5")
    assert http1.rewrite_response(raw, request_method=HEAD) == raw


@pytest.mark.parametrize(
    "raw",
    [
        request("Accept: */*", "X-Forwarded-For: 1", "Connection: x", "X: 1"),
        request("Content-Length: 5", line="POST http://a.example:80 HTTP/1.1"),
        request("Transfer-Encoding: chunked", "Upgrade: websocket", "Connection: upgrade", line="PUT / HTTP/1.1"),
        request("Connection: keep-alive", line="GET / HTTP/1.0"),
    ],
)
def test_write_request_result_says_the_same_and_is_written_the_same(raw):
    first = http1.rewrite_request(raw, visitor=b"192.0.2.1")
    before, after = read_request(raw), read_request(first)
    for key in ("method_name", "host", "body", "upgrade", "expect_continue"):
        assert before[key] == after[key]
    assert http1.rewrite_request(first, visitor=b"192.0.2.1") == first


# --- h11 as second opinion


@pytest.mark.parametrize("fields", [[], ["Content-Length: 5"], ["Content-Length: 0"], ["Transfer-Encoding: chunked"]])
@pytest.mark.parametrize(
    "line", ["GET / HTTP/1.1", "POST /x HTTP/1.1", "HEAD / HTTP/1.1", "FOO / HTTP/1.1", "OPTIONS * HTTP/1.1"]
)
def test_request_accepted_ends_where_h11_says(line, fields):
    raw = request(*fields, line=line) + b"5\r\nhello\r\n0\r\n\r\n" * 2
    head = read_request(raw)
    end, _ = http1.head_end(raw)
    _, taken, done = http1.walk_body(*head["body"], [raw[end:]])
    oracle = h11_oracle.read_request(raw)
    assert (oracle.taken_bytes, oracle.is_complete) == (end + taken, done)


@pytest.mark.parametrize("fields", [[], ["Content-Length: 5"], ["Content-Length: 0"], ["Transfer-Encoding: chunked"]])
@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
@pytest.mark.parametrize("status", [200, 204, 304, 404, 500])
def test_response_accepted_ends_where_h11_says(status, method, fields):
    raw = response(*fields, line=f"HTTP/1.1 {status} Word") + b"5\r\nhello\r\n0\r\n\r\n"
    head = read_response(raw, {b"GET": GET, b"HEAD": HEAD}[method])
    end, _ = http1.head_end(raw)
    _, taken, done = http1.walk_body(*head["body"], [raw[end:]])
    ends_at_close = head["body"][0] == UNTIL_CLOSE
    oracle = h11_oracle.read_response(raw, method, ends_at_close=ends_at_close)
    assert (oracle.taken_bytes, oracle.is_complete) == (end + taken, done or ends_at_close)
