"""The administration beside traffic, with real processes: what the API changes is seen outside."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import json
import os
import signal
import threading
from pathlib import Path
from typing import ClassVar

import pytest

from spokes.control import CONTROL_SOCKET_NAME, call_control
from spokes.model.api_keys import CreateApiKey
from spokes.model.tunnels import AssignTunnel
from spokes.store import Store
from tests.support.operations import do
from tests.support.ports import free_port_range
from tests.support.processes import DOMAIN, Client, ServerProcess, wait_until

pytestmark = pytest.mark.e2e

API = "/api/admin/v1.0"
OWN_API = "/api/admin/v1.1"


class Operator:
    """An Admin API client that keeps its cookie."""

    def __init__(self, server: ServerProcess) -> None:
        self.server = server
        with Store.open(f"sqlite:///{server.data / 'spokes.db'}") as store:
            _, self.key = do(store, CreateApiKey("test"))
        self.cookie = ""

    def call(
        self, path: str, body: object = None, *, within_s: float = 10.0, api: str = API
    ) -> tuple[int, dict]:
        conn = http.client.HTTPConnection("127.0.0.1", self.server.http_port, timeout=within_s)
        try:
            conn.request(
                "GET" if body is None else "POST",
                api + path,
                json.dumps(body) + "\n",
                {
                    "Host": DOMAIN, "Content-Type": "application/json", "Accept": "application/json",
                    **({"Cookie": self.cookie} if self.cookie else {}),
                },
            )  # fmt: skip
            answer = conn.getresponse()
            self.cookie = (answer.getheader("Set-Cookie") or self.cookie).partition(";")[0]
            data = answer.read()
            is_json = answer.getheader("Content-Type") == "application/json"
            return answer.status, json.loads(data) if is_json else {"page": data.decode()}
        finally:
            conn.close()

    def sign_in(self) -> bool:
        try:
            return bool(self.call("/auth", {"key": self.key})[1].get("status"))
        except OSError:
            return False


@pytest.fixture
def server(tmp_path: Path):
    config = tmp_path / "spokes.toml"
    config.write_text("traffic_interval_s = 0.2\n")
    server = ServerProcess(tmp_path, str(free_port_range(4)), "--admin", "true", "--config", config)
    server.start()
    yield server
    server.end()


@pytest.fixture
def operator(server):
    operator = Operator(server)
    wait_until(operator.sign_in, 20, "the administration")
    return operator


@pytest.fixture
def client(server, tmp_path: Path):
    client = Client(server, tmp_path / "client.json")
    yield client
    client.end()


@pytest.fixture
def owned(server, operator, client, web):
    """The user whose tunnel the client serves the web service by."""
    client.spoke("http", "add", "--domain", client.hostname, "--destination", "127.0.0.1", "--http", web.port)
    client.start()
    wait_until(lambda: server.serves(client.hostname), 15, "the tunnel")
    status, answer = operator.call("/user/create", {"userID": "0" * 32, "email": "mara@example.org", "Active": True})
    assert (status, answer["status"]) == (200, True)
    uid = answer["user"]["id"]
    with Store.open(f"sqlite:///{server.data / 'spokes.db'}") as store:
        do(store, AssignTunnel(uid=client.tunnel, user_uid=uid, name="desk", hostname=None, domain=DOMAIN))
    call_control(server.data / CONTROL_SOCKET_NAME, "changed")
    return uid


def admin_pid(server: ServerProcess) -> int:
    return int(server.status()["admin"]["pid"])


def children(pid: int) -> list[int]:
    return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize("victim", ["master", "worker"])
def test_gunicorn_killed_leaves_traffic_alone_and_is_back(server, operator, client, web, victim):
    client.spoke("http", "add", "--domain", client.hostname, "--destination", "127.0.0.1", "--http", web.port)
    client.start()
    wait_until(lambda: server.serves(client.hostname), 15, "the tunnel")
    slow: list[tuple[int, bytes]] = []
    download = threading.Thread(
        target=lambda: slow.append(server.get(client.hostname, "/slow", within_s=30)), daemon=True
    )
    download.start()
    web.gate.release()
    master = admin_pid(server)
    target = master if victim == "master" else children(master)[0]
    os.kill(target, signal.SIGKILL)
    refusals = set()

    def is_back() -> bool:
        try:
            status, answer = operator.call("/ping", within_s=5)
        except OSError:
            return False
        refusals.update({status} if status != 200 else ())
        return status == 200 and answer["status"]

    wait_until(is_back, what="the administration again")
    assert refusals <= {503}
    for _ in range(10):
        web.gate.release()
    download.join(30)
    assert slow == [(200, b"x" * 100)]


def test_user_deactivated_by_api_takes_the_tunnel_off_within_a_second(server, operator, client, owned):
    status, answer = operator.call("/user/activate", {"userID": owned, "Active": False})
    assert (status, answer["status"]) == (200, True)
    wait_until(lambda: server.serves(client.hostname, 503), 1.0, "the tunnel off-line")
    assert "SPK-INACTIVE" in client.processes[0].log() or server.get(client.hostname)[0] == 503


def test_month_used_up_closes_the_tunnel_until_the_limit_is_raised(server, operator, client, owned, web):
    assert operator.call("/user/bandwidth/cap", {"userID": owned, "max": 1})[1]["status"]
    with contextlib.suppress(OSError, http.client.HTTPException):  # the limit may cut it before its end
        server.get(client.hostname, "/big")
    wait_until(lambda: server.serves(client.hostname, 503), 10, "the page of a limit that is used up")
    assert b"SPK-BANDWIDTH" in server.get(client.hostname)[1]
    assert operator.call("/user/bandwidth/cap", {"userID": owned, "max": 0})[1]["status"]
    wait_until(lambda: server.serves(client.hostname), 15, "the tunnel again")


class Hook(http.server.BaseHTTPRequestHandler):
    """Keeps what it is told."""

    bodies: ClassVar[list[dict]] = []

    def do_POST(self) -> None:
        self.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


def test_webhook_made_by_api_hears_of_services_that_come_and_go(server, operator, client, web):
    Hook.bodies.clear()
    with http.server.HTTPServer(("127.0.0.1", 0), Hook) as receiver:
        threading.Thread(target=receiver.serve_forever, args=(0.05,), daemon=True).start()
        url = f"http://127.0.0.1:{receiver.server_address[1]}/"
        asked = {"url": url, "kinds": ["service"], "allowPrivate": True}
        assert operator.call("/webhook/create", asked, api=OWN_API)[1]["status"]
        client.spoke("http", "add", "--domain", client.hostname, "--destination", "127.0.0.1", "--http", web.port)
        process = client.start()
        wait_until(lambda: [body["available"] for body in Hook.bodies] == [True], 15, "the service up")
        process.end(signal.SIGKILL)
        wait_until(lambda: [body["available"] for body in Hook.bodies] == [True, False], 15, "the service down")
        receiver.shutdown()
    assert {body["http"]["domainName"] for body in Hook.bodies} == {client.hostname}
    assert {body["tunnel"]["id"] for body in Hook.bodies} == {client.tunnel}
    assert [body["tunnel"]["state"] for body in Hook.bodies] == [2, 3]


def test_server_killed_takes_the_administration_along(server, operator):
    master = admin_pid(server)
    workers = children(master)
    assert workers
    server.end(signal.SIGKILL)
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in (master, *workers)), 5, "both gone")


def test_server_stopped_in_order_takes_the_administration_along(server, operator):
    master = admin_pid(server)
    assert server.end(signal.SIGTERM) == 0
    assert not Path(f"/proc/{master}").exists()
