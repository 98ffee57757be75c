"""Frame headers and OPEN, whole and cut at every byte."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spokes._fastpath.hooks.link_hooks import NUMBERS, parse_frame, parse_open

from tests.support.frames import FrameType, frame, open_payload

PROTO = -5002
AGAIN = 0
HEADER = NUMBERS["header"]

# type: (stream it must be on, lengths that are right, lengths that are wrong)
LENGTHS = {
    FrameType.OPEN: (2, [25, 26, 280], [0, 24, 281, 65535]),
    FrameType.DATA: (2, [1, 65535], [0]),
    FrameType.FIN: (2, [0], [1, 65535]),
    FrameType.RESET: (2, [2], [0, 1, 3, 65535]),
    FrameType.CREDIT: (2, [8], [0, 7, 9, 65535]),
    FrameType.PING: (0, [8], [0, 7, 9, 65535]),
    FrameType.PONG: (0, [8], [0, 7, 9, 65535]),
    FrameType.CONTROL: (0, [0, 1, 65535], []),
    FrameType.DRAIN: (0, [0], [1, 65535]),
    FrameType.DATAGRAM: (2, [0, 1, 65507], [65508, 65535]),
}


def header(kind: int, stream: int, length: int, flags: int = 0) -> bytes:
    return struct.pack(">HBBI", length, kind, flags, stream)


@pytest.mark.parametrize(("kind", "length"), [(kind, n) for kind, (_, good, _) in LENGTHS.items() for n in good])
def test_frame_length_that_fits_its_type_is_read(kind, length):
    stream = LENGTHS[kind][0]
    assert parse_frame(header(kind, stream, length, flags=3)) == (HEADER, kind, 3, stream, length)


@pytest.mark.parametrize(("kind", "length"), [(kind, n) for kind, (_, _, bad) in LENGTHS.items() for n in bad])
def test_frame_length_that_does_not_fit_its_type_is_refused(kind, length):
    assert parse_frame(header(kind, LENGTHS[kind][0], length))[0] == PROTO


@pytest.mark.parametrize("kind", LENGTHS)
def test_frame_on_the_wrong_kind_of_stream_is_refused(kind):
    stream, good, _ = LENGTHS[kind]
    assert parse_frame(header(kind, 0 if stream else 1, good[0]))[0] == PROTO


@pytest.mark.parametrize("kind", LENGTHS)
@pytest.mark.parametrize("cut", range(HEADER))
def test_frame_header_cut_anywhere_waits_for_more(kind, cut):
    stream, good, _ = LENGTHS[kind]
    assert parse_frame(header(kind, stream, good[0])[:cut])[0] == AGAIN


UNKNOWN = st.sampled_from([kind for kind in range(256) if kind not in set(FrameType)])


@given(UNKNOWN, st.integers(0, 2**32 - 1), st.integers(0, 65535))
def test_frame_of_unknown_type_is_left_to_its_length(kind, stream, length):
    assert parse_frame(header(kind, stream, length)) == (HEADER, kind, 0, stream, length)


@pytest.mark.parametrize("name", [b"", b"a", b"a.example", b"n" * 255])
def test_open_is_read_field_by_field(name):
    payload = open_payload(3, 443, name=name, family=6, flags=1, hops=2)
    ip = bytes((192, 0, 2, 7)) + bytes(12)
    assert parse_open(payload) == (0, 3, 1, 443, 2, 6, 50000, ip, name)


@pytest.mark.parametrize("cut", range(len(open_payload(name=b"a.example"))))
def test_open_cut_anywhere_is_refused(cut):
    assert parse_open(open_payload(name=b"a.example")[:cut])[0] == PROTO


def test_open_with_bytes_behind_its_name_is_refused():
    assert parse_open(open_payload(name=b"a.example") + b"x")[0] == PROTO


@pytest.mark.parametrize("service", [0, 5, 255])
def test_open_of_unknown_service_is_refused(service):
    assert parse_open(open_payload(service))[0] == PROTO


@pytest.mark.parametrize("family", [1, 2, 5, 7, 10, 255])
def test_open_with_unknown_family_is_refused(family):
    assert parse_open(open_payload(family=family))[0] == PROTO


@pytest.mark.parametrize("byte", [0, 9, 10, 13, 32, 127, 128, 255])
def test_open_name_with_a_byte_no_name_has_is_refused(byte):
    assert parse_open(open_payload(name=b"a" + bytes([byte]) + b"b"))[0] == PROTO


@given(st.binary(max_size=300))
def test_open_garbage_never_reads_past_its_end(data):
    answer = parse_open(data)
    assert answer[0] in (0, PROTO)
    if answer[0] == 0:
        assert len(data) == 25 + len(answer[-1])


def test_frame_written_by_hand_is_the_engines():
    assert frame(FrameType.RESET, 0x01020304, b"\x00\x07") == bytes.fromhex("0002040001020304 0007".replace(" ", ""))
