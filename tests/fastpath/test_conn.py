"""What conns need beside a socket: the text of a visitor's address, as it is forwarded."""

from __future__ import annotations

import ipaddress

import pytest
from spokes._fastpath.conn import address_words


@pytest.mark.parametrize("place", range(4))
def test_address_text_ipv4_every_octet_is_as_the_standard_library_writes_it(place):
    for octet in range(256):
        ip = bytearray((10, 200, 0, 99))
        ip[place] = octet
        assert address_words(bytes(ip)) == str(ipaddress.IPv4Address(bytes(ip)))


@pytest.mark.parametrize("text", ["::1", "2001:db8::7", "2001:db8:1:2:3:4:5:6", "fe80::ffff:ffff:ffff:ffff"])
def test_address_text_ipv6_is_as_the_standard_library_writes_it(text):
    assert address_words(ipaddress.IPv6Address(text).packed) == text
