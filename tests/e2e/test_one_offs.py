"""Commands that serve one rule, beside each other and beside `spoke start`; whoever is killed, the others go on."""

from __future__ import annotations

import signal
import socket

import pytest

from tests.support.processes import Client, Process, ServerProcess, service, wait_until

pytestmark = pytest.mark.e2e


@pytest.fixture
def other_web():
    with service() as running:
        yield running


def address_of(process: Process) -> tuple[str, int]:
    """Where `spoke tcp` is reached."""

    def lines() -> list[str]:
        return [line for line in process.log().splitlines() if line.startswith("127.0.0.1:")]

    wait_until(lambda: lines() or process.popen.poll() is not None, what="the address")
    assert lines(), process.log()
    host, _, port = lines()[0].rpartition(":")
    return host, int(port)


def answers(address: tuple[str, int]) -> bool:
    try:
        with socket.create_connection(address, 5) as visitor:
            visitor.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return visitor.recv(100).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


def start_all(server: ServerProcess, client: Client, web, other_web) -> tuple[Process, Process, Process]:
    client.spoke("tunnel", "http", "add", "--domain", "prod.example", "--http", web.port)
    first = client.start()
    wait_until(lambda: server.serves("prod.example"))
    http = client.start("http", other_web.port)
    wait_until(lambda: server.serves(client.hostname))
    tcp = client.start("tcp", other_web.port)
    wait_until(lambda: answers(address_of(tcp)))
    return first, http, tcp


def test_one_offs_beside_start_go_with_their_terminals(server, client, web, other_web):
    first, http, tcp = start_all(server, client, web, other_web)
    http.end(signal.SIGKILL)
    wait_until(lambda: server.serves(client.hostname, 404) or server.serves(client.hostname, 503))
    assert answers(address_of(tcp))
    assert tcp.end(signal.SIGINT) == 130
    wait_until(lambda: not answers(address_of(tcp)))
    assert server.serves("prod.example")
    assert first.popen.poll() is None


def test_one_offs_outlive_the_client_that_serves_them(server, client, web, other_web):
    first, http, tcp = start_all(server, client, web, other_web)
    address = address_of(tcp)
    first.end(signal.SIGKILL)
    wait_until(
        lambda: server.serves("prod.example") and server.serves(client.hostname) and answers(address), 40, "all of them"
    )
    again = client.start()
    wait_until(lambda: client.try_spoke("info").stdout.count("online"), 40)
    wait_until(
        lambda: server.serves("prod.example") and server.serves(client.hostname) and answers(address), 40, "all of them"
    )
    assert all(process.popen.poll() is None for process in (again, http, tcp))


def test_second_one_off_for_the_same_name_is_refused_by_itself(server, client, web, other_web):
    first = client.start("http", web.port)
    wait_until(lambda: server.serves(client.hostname))
    second = client.start("http", other_web.port)
    assert second.popen.wait(30) == 1
    assert "SPK-TAKEN" in second.log()
    assert server.serves(client.hostname)
    assert first.popen.poll() is None
