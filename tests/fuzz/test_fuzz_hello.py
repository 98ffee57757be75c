"""Mutated ClientHellos: whole against in pieces and against other record sizes.

SPOKES_FUZZ_EXAMPLES sets the examples per test (default: what takes a few seconds).
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from spokes._fastpath.hooks.hello_hooks import parse_hello

from tests.support import client_hello as ch

LONG_RUN = settings(
    max_examples=int(os.environ.get("SPOKES_FUZZ_EXAMPLES", "600")),
    deadline=None,
    suppress_health_check=list(HealthCheck),
)

MESSAGES = [
    ch.real_hello("a.example", ["spokes/1"])[5:],
    ch.real_hello("b.example", ["h2", "http/1.1"])[5:],
    ch.message(ch.server_name(b"c.example") + ch.alpn(b"acme-tls/1") + ch.versions(0x0304, 0x0303)),
    ch.message(None),
]


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    raw = bytearray(draw(st.sampled_from(MESSAGES)))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(4, len(raw)))
        raw[at : at + draw(st.integers(0, 2))] = draw(st.binary(max_size=2))
    if draw(st.booleans()):
        raw[1:4] = (len(raw) - 4).to_bytes(3, "big")
    return bytes(raw)


def in_pieces(raw: bytes, lengths: range | list[int]):
    for there in lengths:
        result = parse_hello(raw[:there])
        if result != 0:
            return result
    return 0


@LONG_RUN
@given(
    message=messages(),
    sizes=st.lists(st.integers(1, 200), max_size=8),
    noise=st.binary(max_size=3),
    at=st.integers(0, 600),
)
def test_hello_in_pieces_is_as_whole(message, sizes, noise, at):
    raw = bytearray(ch.records(message, *sizes))
    raw[at : at + len(noise)] = noise
    assert in_pieces(bytes(raw), range(len(raw) + 1)) == parse_hello(bytes(raw))


@LONG_RUN
@given(message=messages(), sizes=st.lists(st.integers(1, 200), max_size=8))
def test_hello_says_the_same_in_any_records(message, sizes):
    assert parse_hello(ch.records(message, *sizes)) == parse_hello(ch.records(message))


@LONG_RUN
@given(raw=st.binary(max_size=64))
def test_hello_of_any_bytes_answers(raw):
    for start in (b"", b"\x16\x03\x01", b"\x16\x03\x01\x00\x40\x01\x00\x00\x3c\x03\x03"):
        result = parse_hello(start + raw)
        assert isinstance(result, dict) or result in (0, -5002, -5011)
