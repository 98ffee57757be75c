"""What conns need beside a socket: the text of a visitor's address, as it is forwarded; what the kernel may hold."""

from __future__ import annotations

import fcntl
import ipaddress
import socket
import struct
import termios
from collections.abc import Iterator

import pytest
from spokes._fastpath.hooks.io_hooks import address_words, bound_in_flight, read_path

from tests.support.engines import eventually


@pytest.mark.parametrize("place", range(4))
def test_address_text_ipv4_every_octet_is_as_the_standard_library_writes_it(place):
    for octet in range(256):
        ip = bytearray((10, 200, 0, 99))
        ip[place] = octet
        assert address_words(bytes(ip)) == str(ipaddress.IPv4Address(bytes(ip)))


@pytest.mark.parametrize("text", ["::1", "2001:db8::7", "2001:db8:1:2:3:4:5:6", "fe80::ffff:ffff:ffff:ffff"])
def test_address_text_ipv6_is_as_the_standard_library_writes_it(text):
    assert address_words(ipaddress.IPv6Address(text).packed) == text


# --- a slow line ------------------------------------------------------------------------------------------------------

SEGMENT_BYTES = 1400
PIECE_BYTES = 2048


@pytest.fixture
def line() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A sender with an Ethernet's segments, and a receiver that reads nothing and has little room."""
    with socket.socket() as listener, socket.socket() as sender:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT_BYTES)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        sender.connect(listener.getsockname())
        sender.setblocking(False)
        receiver, _ = listener.accept()
        with receiver:
            yield sender, receiver


def fill(sender: socket.socket) -> int:
    """Pieces, as a link writes them, until none is taken: how much is unacknowledged and unsent then."""
    try:
        while True:
            sender.send(bytes(PIECE_BYTES))
    except BlockingIOError:
        return struct.unpack("i", fcntl.ioctl(sender, termios.TIOCOUTQ, bytes(4)))[0]


@pytest.mark.parametrize("bound_bytes", [3072, 12_288])
def test_bounded_line_takes_no_more_than_its_bound_and_two_pieces_until_it_is_left_to_the_kernel(line, bound_bytes):
    sender, _receiver = line
    bound_in_flight(sender.fileno(), bound_bytes)
    assert PIECE_BYTES <= fill(sender) <= bound_bytes + 2 * PIECE_BYTES
    bound_in_flight(sender.fileno(), 0)
    assert fill(sender) > 65_536


def test_path_tells_what_its_other_end_has_acknowledged(line):
    sender, receiver = line
    sender.send(bytes(1000))
    assert len(receiver.recv(1000, socket.MSG_WAITALL)) == 1000
    eventually(lambda: read_path(sender.fileno())[2] == 1001)      # the SYN counts
    rtt_us, rtt_min_us, _ = read_path(sender.fileno())
    assert 0 < rtt_min_us < 10_000_000
    assert 0 < rtt_us < 10_000_000
    assert read_path(0) is None
