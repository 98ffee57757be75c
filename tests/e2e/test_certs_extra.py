"""certs-extra as operators and visitors see it: a wildcard put down, curl with its authority, a renewal under load."""

from __future__ import annotations

import contextlib
import http.server
import json
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from spokes.server.certificates.certs_extra import FOLDER_NAME
from tests.e2e.test_client import PortTeller, serving, started
from tests.support.certificate_pairs import Authority, write
from tests.support.processes import DOMAIN, ServerProcess, run, wait_until
from tests.support.threads import join_thread

pytestmark = pytest.mark.e2e


class FieldTeller(PortTeller):
    """Answers with the fields that it was sent."""

    def told(self) -> bytes:
        return json.dumps({name.lower(): value for name, value in self.headers.items()}).encode()


@pytest.fixture
def port() -> Iterator[int]:
    with serving(http.server.ThreadingHTTPServer(("127.0.0.1", 0), FieldTeller)) as port:
        yield port


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    authority = Authority()
    write(tmp_path / "root.pem", authority.root)
    return authority


@pytest.fixture
def root(server: ServerProcess) -> Path:
    return server.data / FOLDER_NAME


def curl(server: ServerProcess, tmp_path: Path, host: str, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["curl", "-sS", "--cacert", str(tmp_path / "root.pem"), "--resolve", f"{host}:{server.https_port}:127.0.0.1",
         *more, f"https://{host}:{server.https_port}/"],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip


def listed(server: ServerProcess) -> dict[str, Any]:
    found = json.loads(run("spokes", "cert", "ls", "--data", server.data, "--json").stdout)
    return {one["source"]: one for one in found}


def test_automatic_name_under_a_wildcard_has_https_that_curl_trusts(server, client, port, authority, root, tmp_path):
    assert curl(server, tmp_path, client.hostname).returncode == 60      # the server's own is self-made
    authority.put(root / "wildcard", DOMAIN, f"*.{DOMAIN}")
    run("spokes", "reload", "--data", server.data)
    serving = client.start("http", port)
    wait_until(lambda: server.serves(client.hostname))
    wait_until(lambda: curl(server, tmp_path, client.hostname).returncode == 0)
    wait_until(lambda: f"https://{client.hostname}:{server.https_port}\n" in serving.log())
    told = json.loads(curl(server, tmp_path, client.hostname).stdout)
    assert told["x-forwarded-proto"] == "https"
    assert told["x-forwarded-host"] == client.hostname
    assert told["x-forwarded-for"] == "127.0.0.1"
    assert listed(server)[f"{FOLDER_NAME}/wildcard"]["state"] == "in use"
    table = run("spokes", "cert", "ls", "--data", server.data).stdout
    assert f"{FOLDER_NAME}/wildcard" in table
    assert "self-made" in table


def test_certificate_that_comes_and_goes_changes_the_address_that_is_told(server, client, port, authority, root):
    plain, secure = f"http://{client.hostname}:{server.http_port}", f"https://{client.hostname}:{server.https_port}"
    serving = client.start("http", port)
    wait_until(lambda: f"{plain}\n" in serving.log())
    authority.put(root / "wildcard", f"*.{DOMAIN}")
    wait_until(lambda: f"Visitors reach it at {secure} now." in serving.log())
    told = json.loads(client.spoke("info", "--json").stdout)
    assert (told["url"], sorted(told["urls"])) == (secure, [plain, secure])
    assert f"Addresses: {secure}, {plain}" in client.spoke("info").stdout
    authority.put(root / "wildcard", "elsewhere.test")
    wait_until(lambda: f"Visitors reach it at {plain} now." in serving.log())


def test_name_of_a_tunnel_elsewhere_and_one_that_nobody_serves(server, client, port, authority, root, tmp_path):
    authority.put(root / "shop", "shop.example.org", "empty.example.org")
    run("spokes", "reload", "--data", server.data)
    client.spoke("tunnel", "http", "add", "--domain", "shop.example.org", "--destination", "127.0.0.1", "--http", port)
    started(client)
    wait_until(lambda: curl(server, tmp_path, "shop.example.org", "--fail").returncode == 0)
    assert '"x-forwarded-proto": "https"' in curl(server, tmp_path, "shop.example.org").stdout
    nobody = curl(server, tmp_path, "empty.example.org", "-w", "%{http_code}")
    assert nobody.stdout.endswith("404")
    misdirected = curl(server, tmp_path, "shop.example.org", "-H", f"Host: {DOMAIN}", "-w", "%{http_code}")
    assert misdirected.stdout.endswith("421")


def test_renewals_under_load_cost_no_request(server, client, port, authority, root, tmp_path):
    authority.put(root / "wildcard", f"*.{DOMAIN}")
    run("spokes", "reload", "--data", server.data)
    client.start("http", port)
    wait_until(lambda: curl(server, tmp_path, client.hostname, "--fail").returncode == 0)
    answers: list[int] = []
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            answers.append(curl(server, tmp_path, client.hostname, "--fail").returncode)

    asking = [threading.Thread(target=ask, daemon=True) for _ in range(3)]
    for thread in asking:
        thread.start()
    before = len(answers)
    for number in range(12):
        authority.put(root / "wildcard", f"*.{DOMAIN}", days=60 + number)
        run("spokes", "reload", "--data", server.data)
    wait_until(lambda: len(answers) > before + 20)
    over.set()
    for thread in asking:
        join_thread(thread)
    assert set(answers) == {0}


def s_client(server: ServerProcess, tmp_path: Path, *words: object) -> str:
    """What `openssl s_client` says of one request."""
    done = subprocess.run(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{server.https_port}", "-CAfile", str(tmp_path / "root.pem"),
         "-ign_eof", *map(str, words)],
        input=f"GET / HTTP/1.1\r\nHost: shop.{DOMAIN}\r\nConnection: close\r\n\r\n", capture_output=True, text=True,
        timeout=30, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


@pytest.mark.parametrize("version", ["tls1_2", "tls1_3"])
def test_session_is_resumed_over_a_restart(server, authority, root, tmp_path, version):
    authority.put(root / "wildcard", f"*.{DOMAIN}")
    run("spokes", "reload", "--data", server.data)
    named = ("-servername", f"shop.{DOMAIN}", f"-{version}")
    wait_until(lambda: "Verify return code: 0 (ok)" in s_client(server, tmp_path, *named))
    kept = tmp_path / "session.pem"
    assert "\nNew, " in s_client(server, tmp_path, *named, "-sess_out", kept)
    server.end()
    server.start()
    wait_until(lambda: "HTTP/1.1 404 " in s_client(server, tmp_path, *named, "-sess_in", kept))
    again = s_client(server, tmp_path, *named, "-sess_in", kept)
    assert "\nReused, " in again
    assert "HTTP/1.1 404 " in again     # nobody serves that name


def test_certificate_by_name_and_without_one(server, authority, root, tmp_path):
    authority.put(root / "wildcard", f"*.{DOMAIN}")
    run("spokes", "reload", "--data", server.data)
    named = ("-servername", f"shop.{DOMAIN}")
    wait_until(lambda: "Verify return code: 0 (ok)" in s_client(server, tmp_path, *named))
    assert "HTTP/1.1 421 " in s_client(server, tmp_path, "-noservername")      # the server's own, made by itself
    assert "self-signed certificate" in s_client(server, tmp_path, "-noservername")
    unknown = s_client(server, tmp_path, "-servername", "nobody.test")
    assert "unrecognized name" in unknown
    for refused in ("-tls1", "-tls1_1"):
        assert "HTTP/1.1" not in s_client(server, tmp_path, *named, refused, "-cipher", "DEFAULT@SECLEVEL=0")


def test_stalled_handshakes_take_nothing_from_others(server, client, port, authority, root, tmp_path):
    authority.put(root / "wildcard", f"*.{DOMAIN}")
    client.start("http", port)
    wait_until(lambda: curl(server, tmp_path, client.hostname, "--fail").returncode == 0)
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
    with contextlib.ExitStack() as stack:
        stalled = []
        for number in range(1000):
            sock = stack.enter_context(socket.socket())
            sock.bind((f"127.0.1.{1 + number % 100}", 0))
            sock.settimeout(30)
            sock.connect(("127.0.0.1", server.https_port))
            sock.sendall(hello[: 1 + number % len(hello)])
            stalled.append(sock)
        assert curl(server, tmp_path, client.hostname, "--fail").returncode == 0
        for sock in stalled:
            assert sock.recv(100) == b"\x15\x03\x01\x00\x02\x02\x32"     # an alert when the time is up
        assert curl(server, tmp_path, client.hostname, "--fail").returncode == 0


def test_bad_pair_is_shown_with_its_cure(server, client, authority, root, tmp_path):
    (root / "bad").mkdir(parents=True)
    write(root / "bad" / "key.pem", authority.issue("bad.example.org")[1])
    run("spokes", "reload", "--data", server.data)
    wait_until(lambda: f"{FOLDER_NAME}/bad" in listed(server))
    one = listed(server)[f"{FOLDER_NAME}/bad"]
    assert (one["state"], one["hint"]) == ("not used", "put the chain (PEM) there")
    assert "put the chain (PEM) there" in run("spokes", "cert", "ls", "--data", server.data).stdout
    assert "certificate not taken" in server.log()
