"""A session that loses a link: what went over its others goes on, and the tunnel is never off-line."""

from __future__ import annotations

import contextlib
import json
import socket
import threading

import pytest

from spokes.control import CONTROL_SOCKET_NAME, call_control
from spokes.model.sites import PutSites
from spokes.store import Store
from tests.support.cutting_proxy import CuttingProxy, cutting_proxy
from tests.support.operations import do
from tests.support.processes import ServerProcess, wait_until
from tests.support.upstreams import connect, read_exactly, tcp_upstream

pytestmark = pytest.mark.e2e

PIECE = b"x" * 65536


def talk(conn: socket.socket) -> None:
    """`b` asks for bulk without end, anything else comes back."""
    while data := conn.recv(100):
        while data == b"b":
            conn.sendall(PIECE)
        conn.sendall(data)


def drink(visitor: socket.socket, ended: threading.Event) -> None:
    with contextlib.suppress(OSError):
        while visitor.recv(1 << 20):
            continue
    ended.set()


def download_over_second_link(port: int, proxy: CuttingProxy) -> socket.socket:
    """A bulk stream that the server did not put on the first link. It may know the second one a moment after us."""
    while True:
        visitor = connect(port)
        before = proxy.byte_counts[1]
        visitor.sendall(b"b")
        read_exactly(visitor, 64 * len(PIECE))
        if proxy.byte_counts[1] - before >= 32 * len(PIECE):
            return visitor
        visitor.close()


def online_count(server: ServerProcess) -> int:
    return int(server.status()["tunnels"]["online"])


def test_primary_link_cut_other_streams_and_the_session_go_on(server, client):
    with tcp_upstream(talk) as upstream, cutting_proxy(("127.0.0.1", server.https_port)) as proxy:
        client.spoke("tcp", "forward", "--destination", "127.0.0.1", "--dstport", upstream.port)
        document = json.loads(client.config.read_text())
        port = document["ports"][0]["port"]
        client.config.write_text(json.dumps(document | {"serverHost": f"127.0.0.1:{proxy.port}"}))
        process = client.start("start", "--api-port", 0, "--log-level", "info")
        wait_until(lambda: "Running HTTP services:" in process.log(), what="the session")
        assert len(proxy.pairs) == 1

        bulk_ended = threading.Event()
        with connect(port) as bulk:
            bulk.sendall(b"b")
            threading.Thread(target=drink, args=(bulk, bulk_ended), daemon=True).start()
            wait_until(lambda: "additional link" in process.log(), what="a link beside the busy one")
            with download_over_second_link(port, proxy) as download:
                proxy.cut(0)
                wait_until(bulk_ended.is_set, what="the end of what the lost link carried")
                assert online_count(server) == 1
                read_exactly(download, 100 * len(PIECE))
                wait_until(lambda: "session goes on over another link" in process.log(), what="the move")
                wait_until(lambda: len(proxy.pairs) > 2, what="a link in place of the lost one")

        store = Store.open(str(server.data / "spokes.db"))
        try:
            do(store, PutSites(client.tunnel, [{"domain": "pushed.test", "port": upstream.port}]))
        finally:
            store.close()
        call_control(server.data / CONTROL_SOCKET_NAME, "changed")
        wait_until(lambda: json.loads(client.config.read_text())["https"], what="the rule made at the server")
        client.spoke("http", "add", "--domain", "typed.test", "--http", upstream.port)
        assert "off-line" not in server.log()
        assert "Not connected" not in process.log()
