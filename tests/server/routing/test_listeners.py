"""Binding: free addresses, taken ones, and who has them."""

import os
import socket

import pytest

from spokes._fastpath.engine import ListenerKind
from spokes.config_values import Address
from spokes.errors import AddressInUseError, EngineError
from spokes.server.routing.listeners import BoundAddress, bind_sockets, close_all, find_holder
from tests.support.descriptors import open_fds
from tests.support.fake_engine import FakeEngine


def test_bind_several_sockets_share_one_free_port():
    sockets = bind_sockets(Address("127.0.0.1", 0), socket.SOCK_STREAM, 3)
    try:
        assert len({sock.getsockname() for sock in sockets}) == 1
        with socket.create_connection(sockets[0].getsockname(), timeout=2):
            pass
    finally:
        close_all(sockets)


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
@pytest.mark.parametrize("shared", [False, True])
def test_bind_address_in_use_names_address_and_process(kind, shared):
    with socket.socket(socket.AF_INET, kind) as taken:
        if shared:  # as a second server of the same user would have it
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        if kind is socket.SOCK_STREAM:
            taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(AddressInUseError) as refused:
            bind_sockets(Address("127.0.0.1", port), kind, 2)
    assert f"127.0.0.1:{port}" in str(refused.value)
    assert f"process {os.getpid()}" in str(refused.value)


def test_find_holder_nobody_is_empty():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        assert find_holder(sock.getsockname()[1], socket.SOCK_STREAM) == ""


def test_bind_foreign_address_is_refused_with_words():
    with pytest.raises(EngineError, match=r"192\.0\.2\.1"):
        bind_sockets(Address("192.0.2.1", 0), socket.SOCK_STREAM, 1)


def test_bound_address_any_host_has_one_port_on_every_family():
    bound = BoundAddress(Address("", 0), ListenerKind.HTTP, 2)
    try:
        assert len({address.port for address in bound.addresses}) == 1
        assert bound.addresses[0].host == "0.0.0.0"
    finally:
        bound.close_sockets()


def test_bound_address_served_gives_one_socket_to_each_worker_and_udp_to_one():
    engine = FakeEngine(workers=3)
    tcp = BoundAddress(Address("127.0.0.1", 0), ListenerKind.TCP, 3)
    udp = BoundAddress(Address("127.0.0.1", tcp.port), ListenerKind.UDP, 3)
    tcp.serve(engine)
    udp.serve(engine)
    assert sorted(kind for kind, _, _ in engine.listeners.values()) == [3, 3, 3, 4]
    tcp.stop(engine)
    udp.stop(engine)
    assert not engine.listeners
    engine.stop()


def test_bound_address_failed_family_leaves_no_socket_open():
    before = open_fds()
    with socket.socket(socket.AF_INET6) as taken:
        taken.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        taken.bind(("::", 0))
        taken.listen()
        with pytest.raises(AddressInUseError):
            BoundAddress(Address("", taken.getsockname()[1]), ListenerKind.TCP, 2)
    assert open_fds() <= before
