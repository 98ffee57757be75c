"""Rules changed by API through the engine and a real gunicorn: the running client takes them and traffic follows."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from typing import Any

import pytest

from spokes.model.api_keys import CreateApiKey
from spokes.store import Store
from tests.e2e.test_client import document, echo_port, started, web_ports
from tests.support.admin import HEADERS, V1
from tests.support.operations import do
from tests.support.ports import free_port_range
from tests.support.processes import DOMAIN, Client, ServerProcess, wait_until

__all__ = ["echo_port", "web_ports"]

pytestmark = pytest.mark.e2e


class RemoteApi:
    """An existing client of the API: signs in with a key and keeps the cookie."""

    def __init__(self, server: ServerProcess) -> None:
        self._server = server
        self._headers = {**HEADERS, "Host": DOMAIN}
        with Store.open(str(server.data / "spokes.db")) as store:
            _, key = do(store, CreateApiKey("e2e"))
        wait_until(lambda: server.serves(DOMAIN), within_s=30, what="the admin app")
        status, answer, cookie = self._send("POST", "auth", {"key": key})
        assert (status, answer["status"]) == (200, True), answer
        self._headers["Cookie"] = cookie.partition(";")[0]

    def call(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """A call that must be done."""
        answer = self.attempt(path, body)
        assert answer["status"], answer
        return answer

    def attempt(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        return self._send("GET" if body is None else "POST", path, body)[1]

    def _send(self, method: str, path: str, body: dict[str, Any] | None) -> tuple[int, dict[str, Any], str]:
        conn = http.client.HTTPConnection("127.0.0.1", self._server.http_port, timeout=30)
        with contextlib.closing(conn):
            conn.request(method, f"{V1}/{path}", json.dumps(body) + "\n", self._headers)
            answer = conn.getresponse()
            return answer.status, json.loads(answer.read()), answer.getheader("Set-Cookie", "")


@pytest.fixture
def server(tmp_path):
    server = ServerProcess(tmp_path, str(free_port_range(4)), "--drain-timeout", 10, "--admin", "true")
    server.start()
    yield server
    server.end()


@pytest.fixture
def api(server):
    return RemoteApi(server)


def answering_port(server: ServerProcess, host: str) -> int:
    """Which service answers; 0 for none."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        status, body = server.get(host)
        if status == 200 and body[:1].isdigit():
            return int(body.split()[0])
    return 0


def test_rule_changed_by_api_reaches_the_running_client_and_its_traffic(server, client: Client, api, web_ports):
    first, second = web_ports
    client.spoke("http", "add", "--domain", "shop.example.org", "--destination", "127.0.0.1", "--http", first)
    started(client)
    assert answering_port(server, "shop.example.org") == first

    update = f"tunnel/traffic/http/update/{client.tunnel}"
    api.call(update, {"sites": [{"domain": "shop.example.org", "destination": "127.0.0.1", "port": second}]})
    wait_until(lambda: answering_port(server, "shop.example.org") == second, what="the changed rule")
    api.call(update, {"sites": [{"domain": "new.example.org", "destination": "127.0.0.1", "port": first}]})
    wait_until(lambda: answering_port(server, "new.example.org") == first, what="the new rule")
    wait_until(lambda: len(document(client)["synced"]["https"]) == 2, what="the agreement")
    assert {rule["domain"]: rule["port"] for rule in document(client)["https"]} == {
        "shop.example.org": second, "new.example.org": first
    }  # fmt: skip

    shown = api.call(f"tunnel/info/{client.tunnel}")["tunnel"]
    assert (shown["state"], [one["available"] for one in shown["https"]]) == (2, [True, True])
    api.call(f"tunnel/traffic/http/remove/{client.tunnel}", {"domains": ["new.example.org"]})
    wait_until(lambda: answering_port(server, "new.example.org") == 0, what="the removal")
    wait_until(lambda: len(document(client)["https"]) == 1, what="the file")


def test_limit_changed_by_api_counts_for_the_next_request_of_an_open_conn(server, client: Client, api, web_ports):
    site = {"domain": "shop.example.org", "destination": "127.0.0.1", "port": web_ports[0]}
    client.spoke("http", "add", "--domain", "shop.example.org", "--destination", "127.0.0.1", "--http", web_ports[0])
    started(client)
    wait_until(lambda: answering_port(server, "shop.example.org") == web_ports[0], what="the rule")
    conn = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=30)

    def target_of(length: int) -> tuple[int, str]:
        conn.request("GET", "/" + "t" * (length - 16), headers={"Host": "shop.example.org"})
        answer = conn.getresponse()
        answer.read()
        return answer.status, answer.getheader("X-Spokes-Code", "")

    with contextlib.closing(conn):
        assert target_of(1000)[0] != 414
        api.call(f"tunnel/traffic/http/update/{client.tunnel}", {"sites": [{**site, "maxHeaderLine": 900}]})
        wait_until(lambda: target_of(1000) == (414, "SPK-TARGET-TOO-LONG"), what="the limit")
        api.call(f"tunnel/traffic/http/update/{client.tunnel}", {"sites": [{**site, "maxHeaderLine": 20000}]})
        wait_until(lambda: target_of(19000)[0] != 414, what="the larger one")
    wait_until(lambda: document(client)["https"][0].get("maxHeaderLine") == 20000, what="the client's file")


def test_port_allocated_and_forwarded_by_api_listens_and_leads_to_the_service(server, client: Client, api, echo_port):
    started(client)
    (allocated,) = api.call(f"tunnel/traffic/tcp/allocate/{client.tunnel}")["ports"]
    assert allocated["tunID"] == client.tunnel
    port = allocated["port"]
    api.call(f"tunnel/traffic/tcp/update/{client.tunnel}",
             {"ports": [{"port": port, "destination": "127.0.0.1", "dstPort": echo_port}]})  # fmt: skip

    def echoes() -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as conn:
            conn.sendall(b"hello")
            return conn.recv(5) == b"hello"
        return False

    wait_until(echoes, what="the forwarding")
    api.call(f"tunnel/traffic/tcp/reset/{client.tunnel}", {"ports": [port]})
    wait_until(lambda: not echoes(), what="the reset")
    wait_until(lambda: document(client)["ports"] == [{"port": port}], what="the file")
    api.call(f"tunnel/traffic/tcp/release/{client.tunnel}", {"port": port})
    wait_until(lambda: document(client)["ports"] == [], what="the file")


def test_rule_changed_and_removed_by_api_in_quick_succession_stays_removed(server, client: Client, api, web_ports):
    client.spoke("http", "add", "--domain", "kept.example.org", "--destination", "127.0.0.1", "--http", web_ports[0])
    started(client)
    for number in range(10):
        domain = f"n{number}.example.org"
        rule = {"domain": domain, "destination": "127.0.0.1", "port": web_ports[1]}
        api.call(f"tunnel/traffic/http/update/{client.tunnel}", {"sites": [rule]})
        api.call(f"tunnel/traffic/http/remove/{client.tunnel}", {"domains": [domain]})
        (allocated,) = api.call(f"tunnel/traffic/tcp/allocate/{client.tunnel}")["ports"]
        api.call(f"tunnel/traffic/tcp/release/{client.tunnel}", {"port": allocated["port"]})
    last = {"domain": "last.example.org", "destination": "127.0.0.1", "port": web_ports[1]}
    api.call(f"tunnel/traffic/http/update/{client.tunnel}", {"sites": [last]})
    wait_until(lambda: answering_port(server, "last.example.org") == web_ports[1], what="the last rule")
    wait_until(lambda: len(document(client)["synced"]["https"]) == 2, what="the agreement")
    kept = ["kept.example.org", "last.example.org"]
    assert [rule["domain"] for rule in document(client)["https"]] == kept
    assert document(client)["ports"] == []
    config = api.call(f"tunnel/config/{client.tunnel}")["config"]
    assert [site["domain"] for site in config["https"]] == kept


def test_rule_changed_while_the_client_is_away_outlives_its_return(server, client: Client, api, web_ports):
    first, second = web_ports
    for domain in ("a.example.org", "b.example.org"):
        client.spoke("http", "add", "--domain", domain, "--destination", "127.0.0.1", "--http", first)
    process = started(client)
    process.end()
    api.call(f"tunnel/traffic/http/update/{client.tunnel}",
             {"sites": [{"domain": "a.example.org", "destination": "127.0.0.1", "port": second}]})  # fmt: skip
    api.call(f"tunnel/traffic/http/remove/{client.tunnel}", {"domains": ["b.example.org"]})
    api.call(f"tunnel/traffic/portmap/update/{client.tunnel}",
             {"portmaps": [{"listenPort": 5432, "dstPort": 22001, "destination": "", "transport": "tcp"}]})  # fmt: skip
    client.spoke("http", "add", "--domain", "c.example.org", "--destination", "127.0.0.1", "--http", first)
    started(client)
    assert [answering_port(server, f"{name}.example.org") for name in "abc"] == [second, 0, first]
    config = api.call(f"tunnel/config/{client.tunnel}")["config"]
    assert {site["domain"]: site["port"] for site in config["https"]} == {
        "a.example.org": second, "c.example.org": first
    }  # fmt: skip
    assert [portmap["listenPort"] for portmap in document(client)["portmaps"]] == [5432]


def test_unmanaged_client_refuses_and_the_api_says_so(server, client: Client, api, web_ports):
    first, second = web_ports
    client.spoke("http", "add", "--domain", "a.example.org", "--destination", "127.0.0.1", "--http", first)
    client.config.write_text(json.dumps({**document(client), "unmanaged": True}))
    started(client)
    rule = {"domain": "a.example.org", "destination": "127.0.0.1", "port": second}
    answer = api.attempt(f"tunnel/traffic/http/update/{client.tunnel}", {"sites": [rule]})
    assert (answer["status"], answer["code"]) == (False, "SPK-UNMANAGED")
    assert answering_port(server, "a.example.org") == first


def test_rule_that_names_what_the_client_does_not_allow_is_not_served_and_is_undone(
    server, client: Client, api, web_ports, tmp_path
):
    first, second = web_ports
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "index.html").write_text("1 secret")
    client.config.write_text(json.dumps({**document(client), "remoteTargets": [f"127.0.0.1:{first}"]}))
    process = started(client)
    update = f"tunnel/traffic/http/update/{client.tunnel}"
    api.call(update, {"sites": [{"domain": "a.example.org", "webRoot": str(secrets)}]})
    api.call(update, {"sites": [{"domain": "b.example.org", "destination": "127.0.0.1", "port": second}]})
    api.call(update, {"sites": [{"domain": "c.example.org", "destination": "127.0.0.1", "port": first}]})
    wait_until(lambda: answering_port(server, "c.example.org") == first, what="the rule that is allowed")
    config = f"tunnel/config/{client.tunnel}"
    wait_until(
        lambda: [site["domain"] for site in api.call(config)["config"]["https"]] == ["c.example.org"],
        what="the server's rules undone",
    )
    assert [answering_port(server, f"{name}.example.org") for name in "ab"] == [0, 0]
    assert f"remoteTargets does not name {secrets}" in process.log()


def test_stop_and_shutdown_end_the_session(server, client: Client, api, web_ports):
    client.spoke("http", "add", "--domain", "a.example.org", "--destination", "127.0.0.1", "--http", web_ports[0])
    process = started(client)
    api.call(f"user/tunnel/stop/{client.tunnel}")
    assert api.call(f"tunnel/info/{client.tunnel}")["tunnel"]["state"] == 3
    process.popen.wait(15)                           # it does not come back by itself
    assert "SPK-STOPPED" in process.log()
    process = started(client)                        # its token stayed good
    api.call(f"tunnel/shutdown/{client.tunnel}")
    process.popen.wait(15)
    assert "SPK-INACTIVE" in process.log()
    assert api.call(f"tunnel/info/{client.tunnel}")["tunnel"]["state"] == 4
    assert answering_port(server, "a.example.org") == 0
