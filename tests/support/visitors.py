"""Visitors of an engine under test, in plain or by TLS that ends at the server."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Callable, Iterator

from tests.support.engines import CHAIN_PEM, Pair
from tests.support.http_wire import TlsWire, Wire


def context_for(chain_pem: bytes, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=chain_pem.decode())
    context.minimum_version = context.maximum_version = version
    return context


@contextlib.contextmanager
def visitors(pair: Pair, host: str, *, by_tls: bool) -> Iterator[Callable[[], Wire]]:
    """Each call connects one; all are closed behind the block."""
    with contextlib.ExitStack() as inside:

        def connect() -> Wire:
            sock = socket.create_connection(("127.0.0.1", pair.ports["tls" if by_tls else "http"]))
            if by_tls:
                return inside.enter_context(TlsWire(context_for(CHAIN_PEM).wrap_socket(sock, server_hostname=host)))
            return inside.enter_context(Wire(sock))

        yield connect
