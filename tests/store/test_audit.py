import hashlib
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from spokes import clock
from spokes.errors import NotFoundError
from spokes.ids import ZERO_UID, new_uid
from spokes.model.api_keys import CreateApiKey
from spokes.model.passwords import SetPassword
from spokes.model.sites import PutSites
from spokes.model.tokens import CreateToken
from spokes.model.tunnels import CreateTunnel, SetTunnelState
from spokes.model.users import CreateUser, DeleteUser, EditUser
from spokes.model.webhooks import CreateWebhook
from spokes.redaction import REDACTED
from spokes.store import Principal, Store, TunnelState, audit
from spokes.store.principal import current_principal
from tests.support.operations import do, password_hash

DOMAIN = "tun.example.net"
MARA = Principal(kind="person", uid="ab" * 16, name="Mara", address="198.51.100.7")


def actions(store):
    return [event.action for event in reversed(store.audit.select())]


def test_acting_every_mutation_leaves_an_event(store):
    with store.audit.acting(MARA):
        user = do(store, CreateUser(fullname="x"))
        do(store, EditUser(user.uid, fullname="y"))
        tunnel, _ = do(store, CreateTunnel(name="t", domain=DOMAIN, user_uid=user.uid))
        do(store, SetTunnelState(tunnel.uid, TunnelState.SHUTDOWN))
        do(store, SetTunnelState(tunnel.uid, TunnelState.INIT))
        do(store, DeleteUser(user.uid))
    assert actions(store) == [
        "user.create", "user.edit", "tunnel.create", "auth_token.create", "tunnel.shutdown", "tunnel.enable",
        "auth_token.delete", "tunnel.delete", "user.delete",
    ]
    edit = store.audit.select(action="user.edit")[0]
    assert (edit.before, edit.after) == ({"fullname": "x"}, {"fullname": "y"})
    assert (edit.actor_kind, edit.actor_uid, edit.actor_name) == ("person", MARA.uid, "Mara")
    assert edit.address == "198.51.100.7"
    assert (edit.object_kind, edit.object_uid) == ("user", user.uid)
    assert store.audit.verify() is None


def test_without_an_actor_no_event(store):
    do(store, CreateUser())
    assert store.audit.select() == []
    with pytest.raises(LookupError):
        store.audit.note("login")


def test_acting_ends_with_its_block_and_nests(store):
    with store.audit.acting(MARA):
        with store.audit.acting(Principal(kind="shell", name="root")):
            do(store, CreateUser())
        assert current_principal() == MARA
    assert current_principal() is None
    assert store.audit.select()[0].actor_name == "root"


def test_refused_mutation_leaves_no_event(store):
    with store.audit.acting(MARA), pytest.raises(NotFoundError):
        do(store, EditUser(new_uid(), active=False))
    assert store.audit.select() == []


def test_event_secrets_are_redacted(store):
    with store.audit.acting(MARA):
        user = do(store, CreateUser())
        do(store, SetPassword(user.uid, password_hash("SECRET1")))
        do(store, SetPassword(user.uid, password_hash("SECRET2")))
        do(store, CreateToken("t"))
        do(store, CreateWebhook("https://hooks.example.org", secret="SECRET-3"))
        _, value = do(store, CreateApiKey("k"))
        tunnel, auth = do(store, CreateTunnel(name="t", domain=DOMAIN))
        do(store, PutSites(tunnel.uid, [
            {
                "domain": "a.example.org", "password": password_hash("SECRET4"),
                "x": [{"secret": "SECRET-6", "privateKey": "SECRET-5"}],
            }
        ]))
    text = "".join(store.audit.export())
    for secret in ("SECRET", value, auth.value, store.tokens.select()[0].value):
        assert secret not in text
    first, second = reversed(store.audit.select(action="user.edit"))
    assert (first.before, first.after) == ({"password_hash": ""}, {"password_hash": REDACTED})
    assert (second.before, second.after) == ({"password_hash": REDACTED}, {"password_hash": REDACTED})


@pytest.mark.parametrize("text", ["\x00", "\ud800", "a\nb\x1b[0m", "'; DROP TABLE admin_event; --", "x" * 999])
def test_event_hostile_actor_and_detail(store, text):
    with store.audit.acting(Principal(kind="client", name=text, address=text)):
        store.audit.note("login.refused", "login", ZERO_UID, {"agent": text.replace("\ud800", "")})
    event, = store.audit.select()
    assert event.actor_name.isprintable()
    assert len(event.actor_name) <= 255
    assert store.audit.verify() is None


def test_list_events_filters_and_pages(store):
    with store.audit.acting(MARA):
        for n in range(3):
            store.audit.note("login", object_uid="1" * 32, detail={"n": n})
    with store.audit.acting(Principal(kind="key", uid="cd" * 16)):
        store.audit.note("login.refused")
        store.audit.note("loginx")
    assert [event.seq for event in store.audit.select()] == [5, 4, 3, 2, 1]
    assert [event.seq for event in store.audit.select(before_seq=4, limit=2)] == [3, 2]
    assert [event.seq for event in store.audit.select(principal_uid="cd" * 16)] == [5, 4]
    assert [event.seq for event in store.audit.select(object_uid="1" * 32)] == [3, 2, 1]
    assert [event.seq for event in store.audit.select(action="login")] == [4, 3, 2, 1]
    for nothing in (
        {"principal_uid": "\x00"}, {"object_uid": "\ud800"}, {"action": "%"}, {"action": "\x00"}, {"limit": -1}
    ):
        assert store.audit.select(**nothing) == []
    assert len(store.audit.select(before_seq=10**30, limit=10**9)) == 5


def test_export_events_can_be_proven_by_others(store):
    with store.audit.acting(MARA):
        do(store, CreateUser(fullname="Jörg \U0001f680"))
        store.audit.note("stop", detail={"why": "upgrade"})
    previous = "0" * 64
    for line in store.audit.export():
        event = json.loads(line)
        digest = event.pop("hash")
        assert event["previous_hash"] == previous
        text = json.dumps(event, sort_keys=True, separators=(",", ":"))
        assert hashlib.sha256(text.encode()).hexdigest() == digest
        previous = digest
    assert previous != "0" * 64


@pytest.mark.parametrize(("damage", "found"), [
    ("UPDATE admin_event SET actor_name = 'Eve' WHERE seq = 3", 3),
    ("UPDATE admin_event SET after = '{{}}' WHERE seq = 2", 2),
    ("UPDATE admin_event SET time = time + 1 WHERE seq = 4", 4),
    ("DELETE FROM admin_event WHERE seq = 3", 3),
    ("DELETE FROM admin_event WHERE seq = 1", 1),
    ("DELETE FROM admin_event WHERE seq = 5", 5),
    ("DELETE FROM admin_event", 1),
])
def test_verify_events_names_the_first_broken_one(store, damage, found):
    with store.audit.acting(MARA):
        for n in range(5):
            store.audit.note("login", detail={"n": n})
    assert store.audit.verify() is None
    with store._db.write():
        store._db.query(damage.replace("{{}}", "{}"))
    assert store.audit.verify() == found


def test_purge_events_beyond_a_count_keeps_the_newest(store):
    with store.audit.acting(MARA):
        for n in range(5):
            store.audit.note("login", detail={"n": n})
    assert store.audit.purge(0, 5) == 0
    assert store.audit.purge(0, 2) == 3
    assert [event.seq for event in store.audit.select()] == [5, 4]
    assert store.audit.verify() is None
    assert store.audit.purge(0, 0) == 2
    assert store.audit.verify() is None


def test_purge_events_keeps_the_chain_of_the_rest(store):
    manual = clock.ManualClock()
    with clock.replaced(manual), store.audit.acting(MARA):
        for n in range(5):
            manual.advance(1)
            store.audit.note("login", detail={"n": n})
        assert store.audit.purge(manual.wall_s() - 1, 100) == 3
        assert [event.seq for event in store.audit.select()] == [5, 4]
        assert store.audit.verify() is None
        assert store.audit.purge(manual.wall_s() - 1, 100) == 0
        assert store.audit.purge(manual.wall_s() + 1, 100) == 2
        assert store.audit.verify() is None
        store.audit.note("login")
    assert [event.seq for event in store.audit.select()] == [6]
    assert store.audit.verify() is None
    with store._db.write():
        store._db.query("DELETE FROM admin_event")
    assert store.audit.verify() == 6


WRITER = """
import sys
from spokes.model.operation import SYSTEM, perform
from spokes.model.users import CreateUser
from spokes.store import Principal, Store
with Store.open(sys.argv[1]) as store, store.audit.acting(Principal(kind="shell", name=sys.argv[2])):
    for n in range(25):
        perform(store, SYSTEM, CreateUser(fullname=f"{sys.argv[2]} {n}"))
        store.audit.note("stop", detail={"n": n})
"""


def test_two_processes_append_to_one_chain(store, store_url):
    processes = [subprocess.Popen([sys.executable, "-c", WRITER, store_url, name]) for name in ("a", "b")]
    assert [process.wait(timeout=100) for process in processes] == [0, 0]
    events = list(store.audit.all_records())
    assert [event.seq for event in events] == list(range(1, 101))
    assert {event.actor_name for event in events} == {"a", "b"}
    assert store.audit.verify() is None


def test_all_events_reads_in_batches(store, monkeypatch):
    monkeypatch.setattr("spokes.store.audit.BATCH_COUNT", 2)
    with store.audit.acting(MARA):
        for _ in range(5):
            store.audit.note("login")
    assert [event.seq for event in store.audit.all_records()] == [1, 2, 3, 4, 5]
    assert store.audit.verify() is None


def test_mutation_of_many_rows_is_one_chain(tmp_path):
    with Store.open(str(tmp_path / "s.db")) as store, store.audit.acting(MARA):
        tunnel, _ = do(store, CreateTunnel(name="t", domain=DOMAIN))
        do(store, PutSites(tunnel.uid, [{"domain": f"s{n}.example.org"} for n in range(1000)]))
        assert len(list(store.audit.all_records())) == 1002
        assert store.audit.verify() is None


def test_verify_events_holds_up_no_writer_and_sees_one_moment(store, monkeypatch):
    """In the middle of it others write, and retention takes away what was not looked at yet."""
    monkeypatch.setattr(audit, "BATCH_COUNT", 2)
    with store.audit.acting(MARA):
        for _ in range(8):
            store.audit.note("login")
    rows, done = store._db.rows, []

    def between(query):
        found = rows(query)
        if not done:
            done.append(True)
            with ThreadPoolExecutor(1) as other:          # a writer that waits for us would never come back
                other.submit(write_and_purge).result(timeout=20)
        return found

    def write_and_purge():
        with store.audit.acting(MARA):
            store.audit.note("login")
        monkeypatch.setattr(store._db, "rows", rows)
        assert store.audit.purge(0, 4) == 5

    monkeypatch.setattr(store._db, "rows", between)
    assert store.audit.verify() is None
    assert store.audit.verify() is None


def test_verify_events_all_gone_meanwhile_is_whole(store, monkeypatch):
    monkeypatch.setattr(audit, "BATCH_COUNT", 2)
    with store.audit.acting(MARA):
        for _ in range(4):
            store.audit.note("login")
    rows = store._db.rows

    def between(query):
        monkeypatch.setattr(store._db, "rows", rows)
        with store.audit.acting(MARA):
            store.audit.note("login")
        assert store.audit.purge(0, 0) == 5
        return rows(query)

    monkeypatch.setattr(store._db, "rows", between)
    assert store.audit.verify() is None


def test_purge_events_goes_slice_by_slice(store, monkeypatch):
    monkeypatch.setattr(audit, "PURGE_COUNT_MAX", 3)
    with store.audit.acting(MARA):
        for _ in range(8):
            store.audit.note("login")
    removed = []
    while count := store.audit.purge(0, 1):
        removed.append(count)
        assert store.audit.verify() is None
    assert removed == [3, 3, 1]
