"""kill -9 in the middle of writing, a full disk, a restarted database server: what was confirmed stands."""

import os
import signal
import subprocess
import sys

import pytest

from spokes.errors import StoreError
from spokes.model.sites import PutSites
from spokes.model.tokens import CreateToken
from spokes.model.tunnels import CreateTunnel
from spokes.store import Kind, Store, connections
from tests.support.operations import do

DOMAIN = "tun.example.net"

# Registers tunnels with a site and a port, and names each only when all three calls have come back.
WRITER = """
import sys
from spokes.model.operation import SYSTEM, perform
from spokes.model.ports import AllocatePort
from spokes.model.sites import PutSites
from spokes.model.tunnels import RegisterTunnel
from spokes.store import Store
with Store.open(sys.argv[1]) as store:
    n = 0
    while True:
        tunnel, key = perform(store, SYSTEM, RegisterTunnel(
            token=sys.argv[2], name=f"t{n}", domain="tun.example.net"
        ))
        perform(store, SYSTEM, PutSites(tunnel.uid, [{"domain": tunnel.hostname, "port": n}]))
        perform(store, SYSTEM, AllocatePort(tunnel.uid, 20000, 60000))
        print(tunnel.uid, key, flush=True)
        n += 1
"""


@pytest.mark.parametrize("confirmed_count", [1, 7, 23, 60])
def test_kill_while_writing_loses_nothing_confirmed(store_url, confirmed_count):
    with Store.open(store_url) as store:
        token = do(store, CreateToken("t")).value
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, store_url, token], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    try:
        confirmed = [writers[0].stdout.readline().split() for _ in range(confirmed_count)]
    finally:
        for writer in writers:
            os.kill(writer.pid, signal.SIGKILL)
    # What a writer printed before it died was confirmed too; a line that was cut off was not.
    for writer in writers:
        confirmed += [line.split() for line in writer.stdout if line.endswith("\n")]
        assert writer.wait(60) == -signal.SIGKILL
        writer.stdout.close()
    with Store.open(store_url) as store:
        tunnels = {tunnel.uid: tunnel for tunnel in store.tunnels.select()}
        sites, ports = store.sites.select(), store.ports.select()
        for uid, key in confirmed:
            assert store.tunnels.find_by_key(key) == tunnels[uid]
            assert [site.domain for site in sites if site.tunnel_uid == uid] == [tunnels[uid].hostname]
            assert len([port for port in ports if port.tunnel_uid == uid]) == 1
        changes = []
        while batch := store.changes.after(len(changes)):
            changes += batch
        assert [change.seq for change in changes] == list(range(1, store.changes.position()[1] + 1))
        kinds = [change.kind for change in changes]
        assert kinds.count(Kind.TUNNEL) == kinds.count(Kind.AUTH_TOKEN) == len(tunnels)
        assert (kinds.count(Kind.SITE), kinds.count(Kind.PORT)) == (len(sites), len(ports))
        assert do(store, CreateToken("afterwards")).rev == len(changes) + 1


def test_full_disk_refuses_writes_keeps_reading_and_recovers(tmp_path):
    with Store.open(str(tmp_path / "s.db")) as store:
        tunnel, _ = do(store, CreateTunnel(name="a", domain=DOMAIN))
        connection = store._db.peewee.connection()
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")               # SQLite answers as on a full disk
        before = store.changes.position()
        with pytest.raises(StoreError, match="disk is full") as failure:
            do(store, PutSites(tunnel.uid, [{"domain": f"s{n}.example.org", "x": "y" * 1000} for n in range(500)]))
        assert failure.value.retryable
        assert (store.changes.position(), store.sites.select()) == (before, [])
        assert store.tunnels.get(tunnel.uid) == tunnel
        connection.execute("PRAGMA max_page_count = 1000000")
        assert len(do(store, PutSites(tunnel.uid, [{"domain": "s.example.org"}]))) == 1


@pytest.mark.postgresql
def test_postgresql_restarted_is_used_again_without_help(postgresql, postgresql_template):
    url = postgresql.create_database(postgresql_template)
    with Store.open(url) as store:
        token = do(store, CreateToken("before"))
        postgresql.restart()
        assert store.tokens.select() == [token]                                # read first
        postgresql.restart()
        second = do(store, CreateToken("after"))                                 # write first
        assert store.tokens.select() == [token, second]
        assert store.changes.position() == (1, 2)


@pytest.mark.postgresql
def test_postgresql_that_never_answers_is_given_up_and_asked_again_later(
    postgresql, postgresql_template, monkeypatch
):
    url = postgresql.create_database(postgresql_template)
    with Store.open(url) as store:
        do(store, CreateToken("before"))
        monkeypatch.setattr(connections.PostgresqlConnection, "answer_within_s", 0.1)
        with postgresql.frozen(), pytest.raises(StoreError, match="cannot be reached"):  # nor lets it anybody in
            store.tokens.select()
        monkeypatch.undo()
        do(store, CreateToken("after"))
        assert {"before", "after"} <= {token.description for token in store.tokens.select()}
    postgresql.drop_database(url)


@pytest.mark.postgresql
def test_postgresql_gone_is_said_and_passes(postgresql, postgresql_template):
    url = postgresql.create_database(postgresql_template)
    with Store.open(url) as store:
        token = do(store, CreateToken("before"))
        postgresql.stop()
        try:
            for call in (store.tokens.select, lambda: do(store, CreateToken("x")), store.presence.reset):
                with pytest.raises(StoreError) as failure:
                    call()
                assert failure.value.retryable
            with pytest.raises(StoreError, match="cannot be reached"):
                Store.open(url)
        finally:
            postgresql.start()
        assert store.tokens.select() == [token]
