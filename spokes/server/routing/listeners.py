"""Listeners: one bound socket for each worker, after a check that the address is free.

Owns: nothing once the engine has the sockets. Fails: AddressInUseError that names address and, where /proc tells,
process; EngineError for any other refusal of the kernel.
"""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Iterable
from pathlib import Path

from spokes._fastpath.engine import Engine, ListenerKind
from spokes.config_values import Address
from spokes.errors import AddressInUseError, EngineError

log = logging.getLogger(__name__)

BACKLOG = 4096
ANY_ADDRESSES = ("0.0.0.0", "::")  # noqa: S104 (a server's default is to be reachable)
_IP_PKTINFO = 8  # Linux; the socket module has no name for it
_TCP_LISTEN, _UDP_BOUND = "0A", "07"  # states in /proc/net; include/net/tcp_states.h of the kernel


def expand(address: Address) -> tuple[Address, ...]:
    """One address for each family where none was named; only IPv4 where the host has no IPv6."""
    if address.host:
        return (address,)
    hosts = ANY_ADDRESSES if _has_ipv6() else ANY_ADDRESSES[:1]
    return tuple(Address(host, address.port) for host in hosts)


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def bind_sockets(address: Address, kind: socket.SocketKind, count: int) -> list[socket.socket]:
    """`count` sockets on one address (port 0 = any free one, the same for all), TCP ones listening."""
    port = _probe(address, kind)
    sockets: list[socket.socket] = []
    try:
        for _ in range(count):
            sockets.append(_bind(Address(address.host, port), kind, shared=True))
            if kind is socket.SOCK_STREAM:
                sockets[-1].listen(BACKLOG)
    except OSError as error:
        close_all(sockets)
        raise _explained(error, Address(address.host, port), kind) from None
    return sockets


def close_all(sockets: Iterable[socket.socket]) -> None:
    for sock in sockets:
        sock.close()


def check_free(address: Address) -> None:
    """For an address that a child binds: whoever has it is told before the child is started."""
    _probe(address, socket.SOCK_STREAM)


def _probe(address: Address, kind: socket.SocketKind) -> int:
    """The port, once it is known that nobody has it. With SO_REUSEPORT alone, a second server of the same user would
    bind happily and take half of the first one's visitors."""
    try:
        with _bind(address, kind, shared=False) as probe:
            if kind is socket.SOCK_STREAM:
                probe.listen(1)
            return int(probe.getsockname()[1])
    except OSError as error:
        raise _explained(error, address, kind) from None


def _bind(address: Address, kind: socket.SocketKind, *, shared: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    sock = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        if family is socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if kind is socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if kind is socket.SOCK_DGRAM:  # from the first datagram on: the engine answers from the address that was asked
            sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
            if family is socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((address.host, address.port))
    except OSError:
        sock.close()
        raise
    return sock


def _explained(error: OSError, address: Address, kind: socket.SocketKind) -> Exception:
    protocol = "TCP" if kind is socket.SOCK_STREAM else "UDP"
    if error.errno == errno.EADDRINUSE:
        holder = find_holder(address.port, kind)
        return AddressInUseError(
            f"{protocol} address {address} is in use{f' by {holder}' if holder else ''}",
            hint="stop that program or choose another address",
        )
    if error.errno == errno.EACCES:
        return EngineError(
            f"{protocol} address {address} may not be bound by this user",
            hint="grant CAP_NET_BIND_SERVICE or choose a port above 1023",
        )
    return EngineError(f"{protocol} address {address} cannot be bound: {error.strerror}", hint="choose another address")


def find_holder(port: int, kind: socket.SocketKind) -> str:
    """`process 123 (nginx)`, as far as /proc tells this user; else an empty text."""
    wanted = {f"socket:[{inode}]" for inode in _socket_inodes(port, kind)}
    if not wanted:
        return ""
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            if any(str(fd.readlink()) in wanted for fd in (process / "fd").iterdir()):
                return f"process {process.name} ({(process / 'comm').read_text().strip()})"
        except OSError:
            continue  # another user's, or it ended meanwhile
    return ""


def _socket_inodes(port: int, kind: socket.SocketKind) -> set[str]:
    names, state = (("tcp", "tcp6"), _TCP_LISTEN) if kind is socket.SOCK_STREAM else (("udp", "udp6"), _UDP_BOUND)
    inodes = set()
    for name in names:
        try:
            lines = Path("/proc/net", name).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            columns = line.split()
            if columns[3] == state and int(columns[1].rpartition(":")[2], 16) == port:
                inodes.add(columns[9])
    return inodes


class BoundAddress:
    """An address that is bound and not yet (or no longer) served."""

    def __init__(self, address: Address, kind: ListenerKind, worker_count: int) -> None:
        self.asked = address
        self.kind = kind
        self.addresses: list[Address] = []
        self._listeners: list[int] = []
        self._sockets: list[tuple[int, socket.socket]] = []
        port = address.port
        socket_kind = socket.SOCK_DGRAM if kind == ListenerKind.UDP else socket.SOCK_STREAM
        count = 1 if kind == ListenerKind.UDP else worker_count
        try:
            for one in expand(address):
                sockets = bind_sockets(Address(one.host, port), socket_kind, count)
                port = int(sockets[0].getsockname()[1])
                self.addresses.append(Address(one.host, port))
                self._sockets += enumerate(sockets)
        except BaseException:
            self.close_sockets()
            raise
        self.port = port

    def serve(self, engine: Engine) -> None:
        """Hands the sockets to the engine, which owns them from now on."""
        spread = self.port % engine.worker_count if self.kind == ListenerKind.UDP else 0
        for worker, sock in self._sockets:
            fd = sock.detach()
            self._listeners.append(engine.add_listener(self.kind, fd, worker=worker + spread, port=self.port))
        self._sockets.clear()

    def stop(self, engine: Engine) -> None:
        """Accepts no more; what came through it goes on."""
        for listener in self._listeners:
            engine.remove_listener(listener)
        self._listeners.clear()
        self.close_sockets()

    def close_sockets(self) -> None:
        close_all(sock for _, sock in self._sockets)
        self._sockets.clear()
