"""`spoke` against a real server with the real engine: what a user sees when rules change and things break."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import json
import shutil
import signal
import socket
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import DOMAIN, Client, Process, ServerProcess, run, wait_until
from tests.support.threads import join_thread

pytestmark = pytest.mark.e2e

WRONG_KEY = "sha256:" + "ab" * 32


class PortTeller(http.server.BaseHTTPRequestHandler):
    """Answers with its own port and the path, so that a test knows who answered."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = self.told()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def told(self) -> bytes:
        return f"{self.server.server_address[1]} {self.path}".encode()

    def log_message(self, *args: Any) -> None:
        pass


class Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        with contextlib.suppress(OSError):
            while data := self.request.recv(65536):
                self.request.sendall(data)


class EchoServer(socketserver.ThreadingTCPServer):
    daemon_threads = True


@contextlib.contextmanager
def serving(server: socketserver.BaseServer) -> Iterator[int]:
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        join_thread(thread)


@pytest.fixture
def web_ports() -> Iterator[tuple[int, int]]:
    """Two web services."""
    with (
        serving(http.server.ThreadingHTTPServer(("127.0.0.1", 0), PortTeller)) as one,
        serving(http.server.ThreadingHTTPServer(("127.0.0.1", 0), PortTeller)) as other,
    ):
        yield one, other


@pytest.fixture
def echo_port() -> Iterator[int]:
    with serving(EchoServer(("127.0.0.1", 0), Echo)) as port:
        yield port


def started(client: Client) -> Process:
    """`spoke start` that serves."""
    process = client.start()
    wait_until(lambda: "Running HTTP services:" in process.log(), what="the services")
    return process


def document(client: Client) -> dict[str, Any]:
    return json.loads(client.config.read_text())


def state(client: Client) -> str:
    return json.loads(client.spoke("info", "--json").stdout)["state"]


def test_http_one_command_to_a_public_url(server, client, web_ports):
    process = client.start("http", web_ports[0])
    url = f"http://{client.hostname}:{server.http_port}"
    wait_until(lambda: url in process.log().splitlines(), what="the URL on a line of its own")
    assert server.get(client.hostname, "/a") == (200, f"{web_ports[0]} /a".encode())
    assert process.end(signal.SIGINT) == 130
    wait_until(lambda: server.serves(client.hostname, 503))
    assert document(client)["https"] == []


def test_tcp_one_command_to_a_public_port(server, client, echo_port):
    process = client.start("tcp", echo_port)
    wait_until(lambda: document(client)["ports"] and "Serving" in process.log())
    port = document(client)["ports"][0]["port"]
    wait_until(lambda: f"127.0.0.1:{port}" in process.log().splitlines())
    with socket.create_connection(("127.0.0.1", port), timeout=10) as visitor:
        visitor.sendall(b"over and back")
        assert visitor.recv(100) == b"over and back"


def configure(server: ServerProcess, config: Path, *more: object) -> str:
    """`spoke configure` that has to fail; its error."""
    done = run(
        "spoke", "configure", "--url", f"https://127.0.0.1:{server.https_port}", "--config", config, *more, code=1
    )
    assert not config.exists()
    return done.stderr


def test_configure_wrong_server_key_shows_both_fingerprints(server, tmp_path):
    token = ("--token-file", server.data / "first-token")
    error = configure(server, tmp_path / "c.json", *token, "--server-key", WRONG_KEY)
    assert "SPK-SERVER-KEY" in error
    assert WRONG_KEY in error
    assert server.fingerprint in error


def test_configure_self_made_certificate_without_pin_is_refused(server, tmp_path):
    error = configure(server, tmp_path / "c.json", "--token-file", server.data / "first-token")
    assert "SPK-SERVER-KEY" in error or "SPK-UNREACHABLE" in error


def test_configure_wrong_token_is_one_line(server, tmp_path):
    error = configure(server, tmp_path / "c.json", "--token", "0" * 64, "--server-key", server.fingerprint)
    assert "SPK-TOKEN" in error
    assert error.count("\n") == 1


def test_rule_changes_reach_a_running_client_and_spare_the_others(server, client, web_ports, echo_port):
    client.spoke("http", "add", "--domain", client.hostname, "--http", web_ports[0])
    process = started(client)
    port = json.loads(client.spoke("tunnel", "tcp", "allocate", "--json").stdout)["port"]
    client.spoke("route", "tcp", "forward", "--destination", "localhost", "--dstport", echo_port)
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as visitor,
        contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=10)) as kept,
    ):
        visitor.sendall(b"before")
        assert visitor.recv(100) == b"before"
        kept.request("GET", "/1", headers={"Host": client.hostname})
        assert kept.getresponse().read() == f"{web_ports[0]} /1".encode()
        own_socket = kept.sock
        for web_port in reversed(web_ports):
            client.spoke("http", "add", "--domain", "shop.test", "--http", web_port)
            assert server.get("shop.test", "/x") == (200, f"{web_port} /x".encode())
        client.spoke("http", "rm", "--domain", "shop.test")
        assert server.get("shop.test")[0] == 404
        visitor.sendall(b"after")
        assert visitor.recv(100) == b"after"
        kept.request("GET", "/2", headers={"Host": client.hostname})
        assert kept.getresponse().read() == f"{web_ports[0]} /2".encode()
        assert kept.sock is own_socket
    assert process.popen.poll() is None


def test_sighup_takes_the_edited_file_and_spares_what_did_not_change(server, client, web_ports):
    client.spoke("http", "add", "--domain", client.hostname, "--http", web_ports[0])
    process = started(client)
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=10)) as kept:
        kept.request("GET", "/1", headers={"Host": client.hostname})
        assert kept.getresponse().read() == f"{web_ports[0]} /1".encode()
        own_socket = kept.sock
        edited = document(client)
        edited["https"].append({"domain": "shop.test", "port": web_ports[1]})
        client.config.write_text(json.dumps(edited))
        process.send(signal.SIGHUP)
        wait_until(lambda: server.serves("shop.test"), what="the rule of the edited file")
        client.config.write_text("{")
        process.send(signal.SIGHUP)
        wait_until(lambda: "configuration not taken" in process.log())
        kept.request("GET", "/2", headers={"Host": client.hostname})
        assert kept.getresponse().read() == f"{web_ports[0]} /2".encode()
        assert kept.sock is own_socket
    assert process.popen.poll() is None


def test_refused_rule_is_an_error_and_is_not_kept(server, client):
    started(client)
    done = client.spoke("http", "add", "--domain", f"admin.{DOMAIN}", "--http", 80, code=1)
    assert "SPK-NAME" in done.stderr
    assert document(client)["https"] == []


def test_second_start_takes_over_and_the_first_does_not_fight(server, client, web_ports):
    client.spoke("http", "add", "--domain", client.hostname, "--http", web_ports[0])
    elsewhere = client.config.with_name("elsewhere.json")       # the same tunnel from another machine
    shutil.copy(client.config, elsewhere)
    first = started(client)
    second = client.start("start", "--api-port", 0, config=elsewhere)
    assert first.popen.wait(15) == 3
    assert "SPK-REPLACED" in first.log()
    assert server.serves(client.hostname)
    assert second.popen.poll() is None


def test_second_start_with_the_same_configuration_is_refused(server, client, web_ports):
    client.spoke("http", "add", "--domain", client.hostname, "--http", web_ports[0])
    first = started(client)
    refused = client.try_spoke("start")
    assert refused.returncode == 1
    assert str(first.popen.pid) in refused.stderr
    assert first.popen.poll() is None
    assert state(client) == "online"


def test_server_killed_and_started_again_no_manual_step(server, client, web_ports):
    client.spoke("http", "add", "--domain", client.hostname, "--http", web_ports[0])
    process = started(client)
    wait_until(lambda: server.serves(client.hostname))
    server.end(signal.SIGKILL)
    wait_until(lambda: "Not connected" in process.log())
    server.start()
    wait_until(lambda: server.serves(client.hostname), within_s=30)
    assert process.popen.poll() is None


def test_client_killed_and_started_again_misled_by_nothing(server, client, web_ports):
    client.spoke("http", "add", "--domain", client.hostname, "--http", web_ports[0])
    started(client).end(signal.SIGKILL)
    client.spoke("http", "add", "--domain", "shop.test", "--http", web_ports[1])  # the access file is still there
    started(client)
    wait_until(lambda: server.serves(client.hostname) and server.serves("shop.test"))


def test_start_before_the_server_is_there(server, client, web_ports):
    client.spoke("http", "add", "--domain", client.hostname, "--http", web_ports[0])
    server.end(signal.SIGTERM)
    process = client.start()
    wait_until(lambda: "Not connected" in process.log())
    server.start()
    wait_until(lambda: server.serves(client.hostname), within_s=30)


def test_sigterm_lets_an_open_stream_end(server, client, echo_port):
    client.spoke("tcp", "forward", "--destination", "localhost", "--dstport", echo_port)
    process = started(client)
    port = document(client)["ports"][0]["port"]
    with socket.create_connection(("127.0.0.1", port), timeout=10) as visitor:
        visitor.sendall(b"1")
        assert visitor.recv(10) == b"1"
        process.send(signal.SIGTERM)
        wait_until(lambda: state(client) == "draining")
        visitor.sendall(b"2")
        assert visitor.recv(10) == b"2"
    assert process.popen.wait(15) == 0


def test_upstream_that_cannot_be_reached_is_a_page_with_a_code(server, client):
    with socket.create_server(("127.0.0.1", 0)) as holder:
        nobody = holder.getsockname()[1]
    client.spoke("http", "add", "--domain", client.hostname, "--http", nobody)
    client.spoke("http", "add", "--domain", "lost.test", "--destination", "no-such-host.invalid", "--http", 80)
    process = started(client)
    for host, code in ((client.hostname, "SPK-UPSTREAM-REFUSED"), ("lost.test", "SPK-UPSTREAM-NAME")):
        wait_until(lambda: server.serves(host, 502), what=host)  # noqa: B023
        assert code.encode() in server.get(host)[1]
        wait_until(lambda: f"Service {host} fails" in process.log() and f"code={code}" in process.log())  # noqa: B023
    failing = {one["domain"]: one["code"] for one in json.loads(client.spoke("info", "--json").stdout)["failing"]}
    assert failing == {client.hostname: "SPK-UPSTREAM-REFUSED", "lost.test": "SPK-UPSTREAM-NAME"}
    assert "failing: refused the connection" in client.spoke("info").stdout


def test_tcp_service_that_is_not_there_fails_until_it_is(server, client):
    with socket.create_server(("127.0.0.1", 0)) as holder:
        service = holder.getsockname()[1]
    client.spoke("tcp", "forward", "--destination", "127.0.0.1", "--dstport", service)
    process = started(client)
    port = document(client)["ports"][0]["port"]

    def visit() -> bytes:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=10) as visitor:
            visitor.sendall(b"hello")
            return visitor.recv(10)
        return b""

    wait_until(lambda: not visit() and f"Service port {port} fails" in process.log())
    with serving(EchoServer(("127.0.0.1", service), Echo)):
        wait_until(lambda: visit() == b"hello" and f"Service port {port} answers again" in process.log())


def test_unix_socket_as_upstream(server, client, tmp_path):
    class UnixTeller(PortTeller):
        def address_string(self) -> str:
            return "unix"

        def do_GET(self) -> None:
            self.send_response(204)
            self.end_headers()

    path = tmp_path / "app.sock"
    with serving(socketserver.ThreadingUnixStreamServer(str(path), UnixTeller)):
        client.spoke("http", "add", "--domain", client.hostname, "--destination", f"unix:{path}")
        started(client)
        wait_until(lambda: server.serves(client.hostname, 204))


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A directory to publish, with something beside it that must not be seen."""
    (tmp_path / "secret").write_text("kept back")
    site = tmp_path / "site"
    (site / "sub").mkdir(parents=True)
    (site / "index.html").write_text("<p>first page")
    (site / "sub" / "large.bin").write_bytes(b"0123456789abcdef" * 500_000)
    (site / ".env").write_text("kept back")
    (site / "link").symlink_to("../secret")
    return site


def test_directory_one_command_to_a_public_url(server, client, site):
    process = client.start("http", "--webroot", site)
    url = f"http://{client.hostname}:{server.http_port}"
    wait_until(lambda: url in process.log().splitlines(), what="the URL on a line of its own")
    assert server.get(client.hostname) == (200, b"<p>first page")
    assert server.get(client.hostname, "/sub/large.bin") == (200, (site / "sub" / "large.bin").read_bytes())
    for path in ("/.env", "/link", "/../secret", "/%2e%2e/secret", "/sub/"):
        status, body = server.get(client.hostname, path)
        assert (status, b"SPK-NO-FILE" in body, b"kept back" in body) == (404, True, False)
    assert process.end(signal.SIGINT) == 130
    wait_until(lambda: server.serves(client.hostname, 503))


def test_directory_that_is_replaced_missing_and_back_is_followed(server, client, site, tmp_path):
    client.spoke("http", "add", "--domain", "pages.test", "--webroot", site)
    process = started(client)
    wait_until(lambda: server.serves("pages.test"))
    site.rename(tmp_path / "old")
    wait_until(lambda: server.serves("pages.test", 502), what="the page that says so")
    assert b"SPK-WEBROOT" in server.get("pages.test")[1]
    wait_until(lambda: "web root not readable" in process.log())
    site.mkdir()
    (site / "index.html").write_text("<p>second page")
    wait_until(lambda: server.get("pages.test") == (200, b"<p>second page"), what="the new directory")


def test_directory_rule_from_the_server_is_served(server, client, site):
    """The rule is at the server alone, as when an operator wrote it there."""
    client.spoke("http", "add", "--domain", "pages.test", "--webroot", site)
    first = started(client)
    wait_until(lambda: server.serves("pages.test"))
    first.end(signal.SIGTERM)
    config = document(client)
    del config["https"], config["synced"]
    client.config.write_text(json.dumps(config))
    started(client)
    wait_until(lambda: server.get("pages.test") == (200, b"<p>first page"))
    assert [rule["webRoot"] for rule in document(client)["https"]] == [str(site)]
