"""Long answers that nobody reads: they hold few threads, and are cut where others wait."""

import contextlib
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from spokes.admin.sending import SMALL_BYTES, Sending
from spokes.admin.slots import SharedSlots
from spokes.errors import AdmissionRefusedError
from spokes.model.api_keys import CreateApiKey
from spokes.model.users import CreateUser
from spokes.store import Store
from tests.support.admin_process import admin_process, request
from tests.support.operations import do
from tests.support.processes import wait_until

USERS = "/api/admin/v1.0/user/list"
PING = "/api/admin/v1.0/ping"


class Socket:
    """What the watcher shuts."""

    def __init__(self):
        self.is_shut = threading.Event()

    def shutdown(self, _how):
        self.is_shut.set()


def long_app(env, start_response):
    start_response("200 OK", [("Content-Length", str(SMALL_BYTES * 4))])
    return [b"x" * SMALL_BYTES * 4]


def call(sending, source, sock=None):
    """(status, body) of one call, its body not read yet."""
    said = []
    body = sending({"spokes.source": source, "gunicorn.socket": sock}, lambda status, headers: said.append(status))
    return said[0], body


def test_long_answer_goes_whole_and_gives_its_place_back():
    sending = Sending(long_app, 8)
    for _ in range(20):
        status, body = call(sending, "one")
        assert (status, sum(map(len, body))) == ("200 OK", SMALL_BYTES * 4)
        body.close()
        body.close()                     # gunicorn may, after a fault


def test_small_answer_needs_no_place():
    def app(env, start_response):
        start_response("200 OK", [("Content-Length", "2")])
        return [b"{}"]

    sending = Sending(app, 8)
    held = [call(sending, "one") for _ in range(20)]
    assert {status for status, _ in held} == {"200 OK"}


def test_answer_that_is_not_read_is_cut_at_its_deadline():
    sending = Sending(long_app, 8, deadline_s=0.05, take_back_s=0.01)
    sock = Socket()
    _, body = call(sending, "one", sock)
    next(body)
    assert sock.is_shut.wait(10)
    body.close()


def test_answer_whose_head_is_refused_gives_its_place_back():
    def refusing(_status, _headers):
        raise ValueError("a head that gunicorn does not send")

    sending = Sending(long_app, 8)
    for _ in range(5):
        with pytest.raises(ValueError, match="gunicorn"):
            sending({"spokes.source": "one"}, refusing)
    assert call(sending, "one")[0] == "200 OK"


def test_answer_that_ended_while_it_was_looked_at_is_not_cut():
    """Its conn may carry the next answer already."""
    sending, sock = Sending(long_app, 8), Socket()
    _, answer = call(sending, "one", sock)
    sum(map(len, answer))
    answer.close()
    sending._deadline_s = sending._take_back_s = 0.0
    sending._check([answer])
    assert not sock.is_shut.is_set()


def test_answer_that_is_not_read_is_cut_where_others_wait_and_whose_most_are():
    sending = Sending(long_app, 8, deadline_s=1000, take_back_s=0.01)
    sockets = {}
    held = []
    for source in ("greedy", "greedy", "greedy", "single"):
        sockets.setdefault(source, []).append(sock := Socket())
        held.append(call(sending, source, sock))
        assert held[-1][0] == "200 OK"
    with ThreadPoolExecutor(1) as pool:
        victim = pool.submit(call, sending, "victim", Socket())
        wait_until(lambda: any(sock.is_shut.is_set() for sock in sockets["greedy"]), what="a greedy one's to be cut")
        cut = next(body for _, body in held if body._is_cut)
        cut.close()                      # as gunicorn does when the socket is shut
        assert victim.result()[0] == "200 OK"
    assert not sockets["single"][0].is_shut.is_set()


def test_refusal_is_in_the_envelope(monkeypatch):
    monkeypatch.setattr("spokes.admin.sending.PATIENCE_S", 0.01)
    sending = Sending(long_app, 2, deadline_s=1000, take_back_s=1000)
    call(sending, "one")
    status, body = call(sending, "two")
    assert status == "503 Service Unavailable"
    assert json.loads(b"".join(body))["code"] == "SPK-BUSY"


def test_places_one_source_leaves_waiting_room_to_others():
    slots = SharedSlots(1, "full", waiting_max=2, patience_s=20)
    slots.acquire("one")

    def use(source):
        with slots.slot(source):
            return source

    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(use, "greedy")
        wait_until(lambda: slots.waiting_count == 1, what="the first to wait")
        with pytest.raises(AdmissionRefusedError):
            slots.acquire("greedy")
        second = pool.submit(use, "victim")
        wait_until(lambda: slots.waiting_count == 2, what="the second to wait")
        slots.release("one")
        assert (first.result(), second.result()) == ("greedy", "victim")


def test_lists_that_a_user_does_not_read_hold_up_nobody_else():
    """The real process: twelve conns of one key ask for a long list and read nothing."""
    with admin_process() as running:
        with Store.open(running.store_url) as store:
            for number in range(2_000):
                do(store, CreateUser(fullname=f"user {number} " + "x" * 200))
            keys = [do(store, CreateApiKey(name))[1] for name in ("greedy", "victim")]
        greedy, victim = ({"Authorization": f"Bearer {key}"} for key in keys)
        with contextlib.ExitStack() as stack:
            for _ in range(12):
                wire = stack.enter_context(running.wire())
                wire.send(request("GET", USERS, b"null\n", **greedy))
            for _ in range(5):
                assert running.ask(request("GET", PING, b"null\n", **victim)).status == 200
            answer = running.ask(request("GET", USERS, b"null\n", **victim))
            assert (answer.status, len(answer.json["users"])) == (200, 2_000)
