"""Handshakes per address: who is let in at which moment."""

from __future__ import annotations

import ipaddress

import pytest
from spokes._fastpath.hooks.base_hooks import run_throttle

V4 = (4, ipaddress.ip_address("198.51.100.7").packed)


def v6(text: str) -> tuple[int, bytes]:
    return 6, ipaddress.ip_address(text).packed


def test_throttle_burst_then_rate():
    at_once = run_throttle(10, 5, [(1000, *V4)] * 8)
    assert at_once == [True] * 5 + [False] * 3
    later = run_throttle(10, 5, [(1000, *V4)] * 8 + [(1100, *V4)] * 2 + [(1350, *V4)] * 3)
    assert later[8:] == [True, False, True, True, False]


def test_throttle_address_within_its_rate_is_never_refused():
    assert all(run_throttle(10, 1, [(100 * number, *V4) for number in range(1000)]))


def test_throttle_quiet_address_has_its_whole_burst_and_no_more():
    assert sum(run_throttle(10, 5, [(1_000_000, *V4)] * 20)) == 5


def test_throttle_refused_ones_do_not_count():
    flood = [(number, *V4) for number in range(10_000)]
    assert sum(run_throttle(10, 5, flood)) == 5 + 99


def test_throttle_ipv6_counts_by_64():
    same = [(1000, *v6(f"2001:db8::{number:x}")) for number in range(1, 9)]
    assert sum(run_throttle(10, 5, same)) == 5
    others = [(1000, *v6(f"2001:db8:0:{number:x}::1")) for number in range(1, 9)]
    assert all(run_throttle(10, 5, others))


@pytest.mark.parametrize("seed", range(5))
def test_throttle_flood_of_one_address_leaves_all_others(seed):
    flood = [(1000, *V4)] * 100
    others = [(1000, 4, ipaddress.ip_address(f"203.0.{number // 250}.{number % 250}").packed) for number in range(5000)]
    assert all(run_throttle(10, 5, flood + others, seed=seed)[100:])


@pytest.mark.parametrize(
    ("network", "address", "counted"),
    [
        ("127.0.0.0/8", "127.9.9.9", False),
        ("127.0.0.0/8", "128.0.0.1", True),
        ("198.51.100.4/30", "198.51.100.7", False),
        ("198.51.100.4/30", "198.51.100.8", True),
        ("0.0.0.0/0", "198.51.100.8", False),
        ("0.0.0.0/0", "2001:db8::1", True),
        ("::1/128", "::1", False),
        ("::1/128", "::2", True),
        ("2001:db8::/33", "2001:db8:7fff::1", False),
        ("2001:db8::/33", "2001:db8:8000::1", True),
    ],
)
def test_throttle_prefix_is_not_counted(network, address, counted):
    net, ip = ipaddress.ip_network(network), ipaddress.ip_address(address)
    prefixes = [(net.version, net.network_address.packed, net.prefixlen)]
    admitted = run_throttle(10, 5, [(1000, ip.version, ip.packed)] * 20, prefixes=prefixes)
    assert sum(admitted) == (5 if counted else 20)
