"""The server with PostgreSQL as its store: restarts of either keep everything, and traffic needs no database."""

import signal

import pytest

from tests.support.ports import free_port_range
from tests.support.postgresql import running
from tests.support.processes import DOMAIN, Client, ServerProcess, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.postgresql]


def test_server_on_postgresql_survives_its_own_death_and_the_databases(tmp_path, web):
    with running() as database:
        server = ServerProcess(tmp_path, str(free_port_range(4)), "--store", database.create_database())
        server.start()
        client = Client(server, tmp_path / "client.json")
        try:
            client.spoke("tunnel", "tcp", "allocate")
            client.start("http", web.port)
            wait_until(lambda: server.serves(client.hostname))
            assert not (server.data / "spokes.db").exists()

            database.stop()
            assert server.get(client.hostname) == (200, b"hello")
            refused = client.spoke("tunnel", "tcp", "allocate", code=1)
            assert "SPK-STORE" in refused.stderr
            assert server.get(client.hostname) == (200, b"hello")
            database.start()
            # Which port it is depends on whether a request that was given up still reached the database.
            wait_until(
                lambda: client.try_spoke("tunnel", "tcp", "allocate").returncode == 0, what="allocation succeeds again"
            )

            server.end(signal.SIGKILL)
            server.start()
            wait_until(lambda: server.serves(client.hostname), within_s=40, what="the client is back")
        finally:
            client.end()
            server.end()


def test_server_whose_database_hangs_serves_visitors_and_refuses_logins_with_a_code(tmp_path, web):
    with running() as database:
        server = ServerProcess(tmp_path, str(free_port_range(4)), "--store", database.create_database(), "--admin=true")
        server.start()
        client, newcomer = Client(server, tmp_path / "client.json"), Client(server, tmp_path / "newcomer.json")
        try:
            client.start("http", web.port)
            wait_until(lambda: server.serves(client.hostname))
            wait_until(lambda: server.get(DOMAIN, "/healthz")[0] == 200)
            with database.frozen():
                assert server.get(client.hostname) == (200, b"hello")
                assert "SPK-STORE" in newcomer.spoke("tunnel", "tcp", "allocate", code=1).stderr
                assert "SPK-STORE" in client.spoke("tunnel", "tcp", "allocate", code=1).stderr
                for _ in range(10):                     # more than it has threads
                    assert server.get(DOMAIN, "/healthz")[0] == 503
                assert server.get(client.hostname) == (200, b"hello")
            wait_until(lambda: newcomer.try_spoke("tunnel", "tcp", "allocate").returncode == 0)
            wait_until(lambda: server.get(DOMAIN, "/healthz")[0] == 200)
        finally:
            client.end()
            server.end()
