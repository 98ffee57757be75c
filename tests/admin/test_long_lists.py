"""Whole lists of many tunnels: one at a time, up to their text."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from spokes.admin import dispatch, long_lists
from spokes.admin.app import create_app
from spokes.admin.routes import ROUTES
from spokes.admin.schema.tunnels import SearchAnswer, TunnelsAnswer
from spokes.model.tunnels import CreateTunnel
from tests.admin.conftest import DOMAIN
from tests.support.admin import Api
from tests.support.operations import do
from tests.support.processes import wait_until

LISTS = ("tunnel/list/active", "tunnel/list/online", "user/tunnel/list/" + "0" * 32)


@pytest.fixture
def writing(monkeypatch):
    """Answers that are being made text: how many at once, and a gate before them."""
    class Writing:
        def __init__(self):
            self.now = self.most = 0
            self.gate = threading.Event()
            self.lock = threading.Lock()

        def __call__(self, *args):
            with self.lock:
                self.now += 1
                self.most = max(self.most, self.now)
            assert self.gate.wait(30)
            with self.lock:
                self.now -= 1
            return write(*args)

    write, made = dispatch._write, Writing()
    monkeypatch.setattr(dispatch, "_write", made)
    return made


@pytest.mark.parametrize(("tunnel_count", "most"), [(2, len(LISTS)), (3, 1)])
def test_long_lists_are_made_one_at_a_time_and_short_ones_are_not(
    admin, caller, store, writing, monkeypatch, tunnel_count, most
):
    monkeypatch.setattr(long_lists, "LONG_COUNT", 2)
    for number in range(tunnel_count):
        do(store, CreateTunnel(name=f"t{number}", domain=DOMAIN))
    app = create_app(admin, authenticate=caller)
    with ThreadPoolExecutor(len(LISTS)) as pool:
        answers = [pool.submit(Api(app).get, path) for path in LISTS]
        wait_until(lambda: writing.now == most, what="as many as may be")
        writing.gate.set()
        assert [answer.result().status_code for answer in answers] == [200] * len(LISTS)
    assert writing.most == most


def test_every_whole_list_of_tunnels_is_marked():
    pages = {"/api/admin/v1.0/tunnel/page/{page_uid}"}
    whole = {
        route.path for route in ROUTES
        if issubclass(route.answer, TunnelsAnswer) and not issubclass(route.answer, SearchAnswer)
    }
    assert {route.path for route in ROUTES if route.whole_list} == whole - pages
