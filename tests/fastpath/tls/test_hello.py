"""hello.pyx: what is read from a ClientHello, and what is refused."""

from __future__ import annotations

import ssl

import pytest
from spokes._fastpath.hooks.hello_hooks import parse_hello

from tests.support import client_hello as ch

RC_PROTO = -5002
RC_TOO_LARGE = -5011
HELLO_BYTES_MAX = 65536

EXTENSIONS = ch.server_name(b"a.example") + ch.alpn(b"spokes/1") + ch.versions(0x0304, 0x0303)
MESSAGE = ch.message(EXTENSIONS)
MADE = {
    "name": b"a.example", "has_link_alpn": True, "has_authority_alpn": False, "has_acme_alpn": False, "worker": 0,
    "has_tls13": True,
}


@pytest.mark.parametrize(
    "name", ["a.example", "B.Example", "x" * 63 + ".example", "xn--bcher-kva.example", "a_b.example"]
)
@pytest.mark.parametrize(
    ("protocols", "link", "acme"),
    [
        (None, False, False),
        (["h2", "http/1.1"], False, False),
        (["spokes/1"], True, False),
        (["acme-tls/1"], False, True),
        (["http/1.1", "spokes/1", "acme-tls/1"], True, True),
        (["spokes/11", "spokes/", "acme-tls/2"], False, False),
    ],
)
def test_hello_of_openssl_gives_name_and_alpn(name, protocols, link, acme):
    hello = ch.real_hello(name, protocols)
    expected = {
        "name": name.lower().encode(), "has_link_alpn": link, "has_authority_alpn": False, "has_acme_alpn": acme,
        "worker": 0, "has_tls13": True,
    }
    assert parse_hello(hello) == expected
    assert parse_hello(hello + b"what follows") == expected


@pytest.mark.parametrize(("word", "worker"), [
    ("spokes-worker/001", 1), ("spokes-worker/056", 56), ("spokes-worker/255", 255), ("spokes-worker/256", 0),
    ("spokes-worker/000", 0), ("spokes-worker/0x1", 0), ("spokes-worker/1", 0), ("spokes-worker/0001", 0),
])
def test_hello_of_a_node_says_which_worker_it_wants(word: str, worker: int):
    hello = parse_hello(ch.real_hello("a.example", ["spokes/1", word]))
    assert (hello["has_link_alpn"], hello["worker"]) == (True, worker)


def test_hello_without_name_has_none():
    assert parse_hello(ch.real_hello(None))["name"] == b""


def test_hello_tls12_only_says_so():
    assert parse_hello(ch.real_hello("a.example", version=ssl.TLSVersion.TLSv1_2))["has_tls13"] is False


def test_hello_without_extensions_is_done():
    assert parse_hello(ch.records(ch.message(None)))["name"] == b""


@pytest.mark.parametrize("hello", [ch.real_hello("a.example", ["spokes/1"]), ch.records(MESSAGE, 1, 2, 3)])
def test_hello_cut_anywhere_is_incomplete(hello):
    assert [parse_hello(hello[:cut]) for cut in range(len(hello))] == [0] * len(hello)


@pytest.mark.parametrize("cut", range(1, len(MESSAGE)))
def test_hello_over_two_records_reads_the_same(cut):
    assert parse_hello(ch.records(MESSAGE, cut)) == MADE


def test_hello_over_many_records_reads_the_same():
    assert parse_hello(ch.records(MESSAGE, *[3] * 60)) == MADE


@pytest.mark.parametrize("record_bytes", [1, 7, 512, 4096, 16384])
@pytest.mark.parametrize("step", [0, 1, 1000])
def test_hello_big_over_records_reads_the_same(record_bytes, step):
    big = ch.message(EXTENSIONS + ch.extension(21, bytes(60_000)))
    assert parse_hello(ch.records(big, *[record_bytes] * (len(big) // record_bytes)), step) == MADE


@pytest.mark.parametrize("step", [1, 2, 3, 5, 100])
def test_hello_in_steps_reads_the_same_and_is_refused_the_same(step):
    assert parse_hello(ch.records(MESSAGE, 1, 2, 3, 4, 60), step) == MADE
    assert parse_hello(ch.records(MESSAGE, 1, 2, 3)[:-1], step) == 0
    assert parse_hello(b"\x16\x03\x01\x00\x01\x01\x15\x03\x01\x00\x02\x02\x28", step) == RC_PROTO
    assert parse_hello(b"\x16\x03\x01\x40\x00\x01\xff\xff\xff", step) == RC_TOO_LARGE


def test_hello_at_the_limit_is_done_and_one_more_is_too_large():
    spare = HELLO_BYTES_MAX - len(ch.message(EXTENSIONS + ch.extension(21, b"")))
    fits = ch.message(EXTENSIONS + ch.extension(21, bytes(spare)))
    sizes = [16384] * 4
    assert len(fits) == HELLO_BYTES_MAX
    assert parse_hello(ch.records(fits, *sizes)) == MADE
    # A message beyond the limit cannot be written by `message`: its extensions' length has two bytes.
    too_large = b"\x01" + ch.vector(fits[4:] + b"\x00", 3)
    assert parse_hello(ch.records(too_large, *sizes)[:9]) == RC_TOO_LARGE


def test_hello_announced_too_large_is_refused_before_it_comes():
    assert parse_hello(b"\x16\x03\x01\x40\x00\x01\xff\xff\xff") == RC_TOO_LARGE


def bad_extensions() -> dict[str, bytes]:
    name, protocols = ch.server_name(b"a.example"), ch.alpn(b"http/1.1")
    return {
        "name twice": ch.server_name(b"a.example", b"b.example"),
        "name extension twice": name + name,
        "alpn twice": protocols + protocols,
        "versions twice": ch.versions(0x0304) * 2,
        "empty name list": ch.extension(0, b"\x00\x00"),
        "empty name extension": ch.extension(0, b""),
        "empty name": ch.server_name(b""),
        "name list longer than extension": ch.extension(0, b"\x00\xff\x00\x00\x01a"),
        "name list shorter than extension": ch.extension(0, b"\x00\x04\x00\x00\x01ab"),
        "name longer than list": ch.extension(0, b"\x00\x04\x00\x00\xffa"),
        "name with NUL": ch.server_name(b"a.example\x00.b.example"),
        "name with blank": ch.server_name(b"a example"),
        "name with slash": ch.server_name(b"a/b"),
        "name with port": ch.server_name(b"a.example:443"),
        "IPv6 literal": ch.server_name(b"[::1]"),
        "name with empty label": ch.server_name(b"a..example"),
        "name with long label": ch.server_name(b"x" * 64 + b".example"),
        "name over 253": ch.server_name(b".".join([b"x" * 50] * 5)),
        "name over 255": ch.server_name(b"x." * 200),
        "name not ASCII": ch.server_name("bücher.example".encode()),
        "empty alpn list": ch.extension(16, b"\x00\x00"),
        "empty protocol": ch.alpn(b"http/1.1", b""),
        "protocol longer than list": ch.extension(16, b"\x00\x03\x08ht"),
        "empty versions": ch.extension(43, b"\x00"),
        "odd versions": ch.extension(43, b"\x03\x03\x04\x03"),
        "extension header cut": b"\x00",
        "extension longer than list": b"\x00\x0a\xff\xff",
    }


@pytest.mark.parametrize("extensions", bad_extensions().values(), ids=bad_extensions().keys())
def test_hello_bad_extension_is_refused(extensions):
    assert parse_hello(ch.records(ch.message(extensions))) == RC_PROTO


@pytest.mark.parametrize(
    "raw",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10",  # SSL 2.0 ClientHello
        b"\x15\x03\x01\x00\x02\x02\x28",  # an alert
        b"\x16\x02\x00\x00\x05\x01\x00\x00\x01\x00",  # SSL 2 in a record
        b"\x16\x03\x05\x00\x05\x01\x00\x00\x01\x00",  # no such version
        b"\x16\x03\x01\x00\x00",  # an empty fragment
        b"\x16\x03\x01\x40\x01\x01",  # a record over 2^14
        b"\x16\x03\x01\x00\x04\x02\x00\x00\x00",  # ServerHello
        b"\x16\x03\x01\x00\x04\x01\x00\x00\x00",  # an empty ClientHello
        ch.records(MESSAGE, 10)[: 5 + 10] + b"\x14\x03\x01\x00\x01\x01",  # something else between the fragments
        ch.records(ch.message(EXTENSIONS, version=b"\x02\x00")),
        ch.records(ch.message(EXTENSIONS, session_id=bytes(33))),
        ch.records(ch.message(EXTENSIONS, ciphers=b"")),
        ch.records(ch.message(EXTENSIONS, ciphers=b"\x13\x01\x00")),
        ch.records(ch.message(EXTENSIONS, compressions=b"")),
        ch.records(ch.message(EXTENSIONS, tail=b"\x00")),
    ],
)
def test_hello_garbage_is_refused(raw):
    assert parse_hello(raw) == RC_PROTO


@pytest.mark.parametrize("message_bytes", range(4, len(MESSAGE)))
def test_hello_shortened_message_is_refused_or_has_no_extensions(message_bytes):
    shortened = b"\x01" + ch.vector(MESSAGE[4:message_bytes], 3)
    without_extensions = len(ch.message(None))
    if message_bytes == without_extensions:
        assert parse_hello(ch.records(shortened))["name"] == b""
    else:
        assert parse_hello(ch.records(shortened)) == RC_PROTO


def test_hello_name_trailing_dot_is_dropped():
    assert parse_hello(ch.records(ch.message(ch.server_name(b"A.Example."))))["name"] == b"a.example"


def test_hello_name_of_another_type_is_skipped():
    extensions = ch.extension(0, ch.vector(b"\x01" + ch.vector(b"\x00?", 2) + b"\x00" + ch.vector(b"a.example", 2), 2))
    assert parse_hello(ch.records(ch.message(extensions)))["name"] == b"a.example"
