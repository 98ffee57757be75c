from __future__ import annotations

import contextlib
import os
import signal
import stat
import subprocess
import time

import pytest

from spokes.model.api_keys import CreateApiKey
from spokes.store import Store
from tests.support.admin_process import AdminProcess, admin_process, request
from tests.support.operations import do
from tests.support.sanitized import IS_SANITIZED

BODY_DEADLINE_S = 1.0
PING = "/api/admin/v1.0/ping"
AUTH = "/api/admin/v1.0/auth"
MEMORY_BYTES_MAX = 120 * 1000 * 1000


@pytest.fixture(scope="module")
def running():
    with admin_process("--body-deadline-s", str(BODY_DEADLINE_S)) as process:
        yield process


@pytest.fixture(scope="module")
def key(running) -> str:
    with Store.open(running.store_url) as store:
        return do(store, CreateApiKey("test"))[1]


def signed_in(running: AdminProcess, key: str) -> str:
    answer = running.ask(request("POST", AUTH, b'{"key": "%s"}' % key.encode()))
    assert answer.status == 200
    return answer.headers["set-cookie"].partition(";")[0]


def test_socket_is_private(running):
    mode = running.socket_path.stat().st_mode
    assert stat.S_ISSOCK(mode) and stat.S_IMODE(mode) == 0o600


GARBAGE = {
    "no HTTP": (b"hello\r\n\r\n", 400, "SPK-BAD-REQUEST"),
    "bad field": (request("GET", PING).replace(b"Host:", b"Ho st:"), 400, "SPK-BAD-REQUEST"),
    "expectation": (request("GET", PING, Expect="200-ok"), 417, "SPK-UNSUPPORTED"),
    "coding": (request("POST", AUTH, **{"Transfer-Encoding": "br, chunked"}), 501, "SPK-UNSUPPORTED"),
    "long target": (request("GET", PING + "?" + "x" * 9000), 414, "SPK-TARGET-TOO-LONG"),
    "many fields": (request("GET", PING, **{f"X-{i}": "1" for i in range(130)}), 431, "SPK-HEAD-TOO-LARGE"),
    "large field": (request("GET", PING, X="1" * 20_000), 431, "SPK-HEAD-TOO-LARGE"),
}


@pytest.mark.parametrize(("raw", "status", "code"), GARBAGE.values(), ids=GARBAGE.keys())
def test_refusal_before_the_app_is_an_envelope(running, raw, status, code):
    answer = running.ask(raw)
    assert (answer.status, answer.json["status"], answer.json["code"]) == (status, False, code)
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["connection"] == "close"
    assert running.ask(request("GET", PING)).status == 401


def test_session_as_a_client_speaks(running, key):
    cookie = signed_in(running, key)
    with running.wire() as wire:                         # one connection, kept alive
        for _ in range(3):
            wire.send(request("GET", "/" + PING, b"null\n", Cookie=cookie))
            answer = wire.read()
            assert (answer.status, answer.json) == (200, {"status": True, "error": "", "message": ""})
            assert answer.headers["content-type"] == "application/json"
            assert answer.headers["connection"] == "keep-alive"


def test_get_large_body_is_not_read(running, key):
    cookie = signed_in(running, key)
    assert running.ask(request("GET", PING, b"x" * 100_000, Cookie=cookie)).status == 200


def test_body_chunked_is_read(running, key):
    body = b'{"key": "%s"}' % key.encode()
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:5], body[5:])) + b"0\r\n\r\n"
    assert running.ask(request("POST", AUTH, chunks, Transfer_Encoding="chunked")).status == 200


def test_body_too_large_is_413_without_reading_it(running):
    assert running.ask(request("POST", AUTH, None, Content_Length=str(10**12))).status == 413


def test_body_chunked_too_large_is_413(running):
    with running.wire() as wire:
        wire.send(request("POST", AUTH, b"", Transfer_Encoding="chunked"))
        chunk = b"%x\r\n%s\r\n" % (1 << 20, b" " * (1 << 20))
        with contextlib.suppress(BrokenPipeError):       # it need not read on to refuse
            for _ in range(8):
                wire.send(chunk)
        answer = wire.read()
    assert (answer.status, answer.json["status"]) == (413, False)


@pytest.mark.parametrize("chunks", [b"5\r\nab", b"zz\r\n", b"5\r\nabcdefg\r\n0\r\n\r\n", b"-1\r\n"])
def test_body_chunks_broken_is_refused_in_the_envelope(running, chunks):
    answer = running.ask(request("POST", AUTH, chunks, Transfer_Encoding="chunked"))
    assert answer.status in (400, 408)
    assert answer.json["status"] is False


def test_body_in_crumbs_is_408_and_holds_nobody_else(running):
    with running.wire() as slow:
        slow.send(request("POST", AUTH, b'{"key"', Content_Length="1000"))
        started = time.monotonic()
        assert running.ask(request("GET", "/healthz")).status == 200
        answer = slow.read()
        assert time.monotonic() - started >= BODY_DEADLINE_S * 0.9
        assert (answer.status, answer.json["status"]) == (408, False)
        assert slow.is_closed()


def test_slow_bodies_of_strangers_never_hold_every_thread(running, key):
    cookie = signed_in(running, key)
    crumb = request("POST", AUTH, b"{", Content_Length="10")
    with running.wire() as a, running.wire() as b, running.wire() as c:
        started = time.monotonic()
        for wire in (a, b, c):
            wire.send(crumb)
        search = request("POST", "/api/admin/v1.0/tunnel/search", b"{}", Cookie=cookie)
        assert running.ask(search).status == 200
        # Which of them comes too late is the scheduler's to say.
        assert sorted(wire.read().status for wire in (a, b, c)) == [408, 408, 503]
        assert time.monotonic() - started >= BODY_DEADLINE_S * 0.9
    assert signed_in(running, key)


@pytest.mark.parametrize("padding", [0, 60_000])
def test_slow_bodies_of_two_users_keep_no_whole_body_waiting(running, padding):
    with Store.open(running.store_url) as store:     # each key of the system is a caller of its own
        key, *slow_keys = (do(store, CreateApiKey("test"))[1] for _ in range(3))
    search = "/api/admin/v1.0/tunnel/search"
    with contextlib.ExitStack() as stack:
        wires = []
        for slow_key in slow_keys * 2:
            wire = stack.enter_context(running.wire())
            wire.send(request("POST", search, b"{", Content_Length="10", Authorization=f"Bearer {slow_key}"))
            wires.append(wire)
        body = b"{}" + b" " * padding
        for _ in range(4):               # the slow ones hold their places by the last at the latest
            assert running.ask(request("POST", search, body, Authorization=f"Bearer {key}")).status == 200
        assert [wire.read().status for wire in wires] == [408] * 4


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "FOO", "get", "QUERY"])
def test_method_other_is_405_in_the_envelope(running, method):
    answer = running.ask(request(method, PING))
    assert (answer.status, answer.headers["allow"], answer.json["status"]) == (405, "GET", False)


def test_header_of_a_visitor_cannot_move_the_app(running):
    assert running.ask(request("GET", "/healthz", None, Script_Name="/healthz")).status == 200
    data = request("GET", "/healthz").replace(b"Accept:", b"SCRIPT_NAME: /healthz\r\nPATH_INFO: /x\r\nAccept:")
    assert running.ask(data).status == 200


@pytest.mark.parametrize("path", ["//", "///api", "/api//admin", "/%2e%2e/etc/passwd", "/\x01", "/a?b=%ff", "*", "/%"])
def test_path_hostile_is_answered(running, path):
    with running.wire() as wire:
        wire.send(request("GET", path.replace("\x01", "%01")))
        assert wire.read().status in (200, 400, 404)


def test_worker_killed_is_replaced_and_sessions_live_on(running, key):
    cookie = signed_in(running, key)
    worker, = running.worker_pids()
    os.kill(worker, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while True:
        try:
            answer = running.ask(request("GET", PING, b"null\n", Cookie=cookie))
            break
        except (OSError, IndexError):                    # the connection was the dead worker's
            assert time.monotonic() < deadline
    assert answer.status == 200


@pytest.mark.skipif(IS_SANITIZED, reason="a sanitizer's own memory is several times that")
def test_memory_of_all_processes_stays_within_its_bound(running, key):
    cookie = signed_in(running, key)
    for path in ("/api/admin/openapi.json", "/api/admin/v1.0/user/list", "/api/admin/v1.1/event/list", PING):
        assert running.ask(request("GET", path, b"null\n", Cookie=cookie)).status == 200
    for number in range(4):                              # password hashes
        body = b'{"email": "a%d@example.org", "password": "no such password"}' % number
        running.ask(request("POST", "/api/admin/v1.1/login", body, X_Real_IP=f"192.0.2.{number}"))
    assert running.rss_bytes() <= MEMORY_BYTES_MAX


def test_process_stops_in_order_and_takes_its_socket_along():
    with admin_process() as running:
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(20) == 0
        assert not running.socket_path.exists()


def test_store_away_is_503_in_the_envelope_until_it_is_there():
    with admin_process() as running:
        database = running.directory / "spokes.db"
        running.process.terminate()
        running.process.wait(20)
        moved = database.rename(running.directory / "away")
        database.mkdir()                                 # a path that cannot be opened as a file
        environment = {**os.environ, "SPOKES_STORE": running.store_url}
        command = running.process.args
        running.process = subprocess.Popen(command, env=environment)
        running.wait_for_answer(503)
        answer = running.ask(request("GET", PING, b"null\n"))
        assert (answer.status, answer.json["code"]) == (503, "SPK-STORE")
        database.rmdir()
        moved.rename(database)
        assert running.ask(request("GET", PING, b"null\n")).status == 401
        running.process.terminate()
        assert running.process.wait(20) == 0
