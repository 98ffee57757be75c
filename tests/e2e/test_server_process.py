"""The server as an operator and its visitors meet it: real processes, real signals, the real engine."""

import contextlib
import http.client
import json
import os
import signal
import socket
import ssl
import stat
import time

import pytest

from spokes.control import call_control
from spokes.model.tunnels import SetTunnelState
from spokes.store import Store, TunnelState
from tests.support.operations import do
from tests.support.processes import DOMAIN, Client, ServerProcess, run, udp_echo, wait_until

pytestmark = pytest.mark.e2e


def test_first_start_prints_what_a_client_needs(server):
    log = server.log()
    token = (server.data / "first-token").read_text().strip()
    assert stat.S_IMODE((server.data / "first-token").stat().st_mode) == 0o600
    assert f"spoke configure --url https://{DOMAIN}:{server.https_port} --server-key {server.fingerprint}" in log
    assert token not in log
    assert log.rstrip().endswith("Spokes is ready")


def test_pages_tell_visitors_what_is_wrong(server, client):
    assert server.get(DOMAIN)[0] == 200
    status, body = server.get("nobody.example.org")
    assert (status, b"SPK-UNKNOWN-HOST" in body) == (404, True)
    status, body = server.get(client.hostname)
    assert (status, b"SPK-OFFLINE" in body) == (503, True)


def test_visitor_reaches_the_service_over_http_and_https(server, client, web):
    client.start("http", web.port)
    wait_until(lambda: server.serves(client.hostname))
    assert server.get(client.hostname) == (200, b"hello")
    trusting = ssl.create_default_context(cafile=server.data / "server.crt")
    raw = socket.create_connection(("127.0.0.1", server.https_port), timeout=10)
    with trusting.wrap_socket(raw, server_hostname=client.hostname) as visitor:
        visitor.sendall(f"GET / HTTP/1.1\r\nHost: {client.hostname}\r\nConnection: close\r\n\r\n".encode())
        assert b"".join(iter(lambda: visitor.recv(4096), b"")).endswith(b"hello")


def test_server_killed_comes_back_with_the_same_names_and_ports(server, client, web):
    port = int(client.spoke("tunnel", "tcp", "allocate").stdout.split()[-1])
    client.spoke("tunnel", "tcp", "forward", "--port", port, "--destination", "127.0.0.1", "--dstport", web.port)
    client.spoke("tunnel", "http", "add", "--domain", client.hostname, "--destination", "127.0.0.1", "--http", web.port)
    client.start()
    wait_until(lambda: server.serves(client.hostname))
    server.end(signal.SIGKILL)
    server.start()
    wait_until(lambda: server.serves(client.hostname), within_s=40, what="the client is back")
    visitor = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    visitor.request("GET", "/")
    assert visitor.getresponse().read() == b"hello"


def test_client_killed_is_offline_at_once_and_back_by_itself(server, client, web):
    first = client.start("http", web.port)
    wait_until(lambda: server.serves(client.hostname))
    first.end(signal.SIGKILL)
    wait_until(lambda: server.serves(client.hostname, 503), within_s=3)
    client.start("http", web.port)
    wait_until(lambda: server.serves(client.hostname))


def test_client_that_hangs_is_taken_over_at_once(server, client, web):
    first = client.start("http", web.port)
    wait_until(lambda: server.serves(client.hostname))
    first.send(signal.SIGSTOP)
    begun = time.monotonic()
    client.start("http", web.port)
    wait_until(lambda: server.status()["tunnels"]["online"] == 1 and server.serves(client.hostname))
    assert time.monotonic() - begun < 20  # a dead link is noticed after 25 s only
    first.send(signal.SIGCONT)
    # It hears that it was replaced, or finds the other command first, which serves what it would.
    code = first.popen.wait(15)
    assert (code == 3 and "SPK-REPLACED" in first.log()) or (code == 1 and "SPK-TAKEN" in first.log())


def test_tunnel_shut_down_by_the_operator_is_out_within_a_second(server, client, web):
    process = client.start("http", web.port)
    wait_until(lambda: server.serves(client.hostname))
    with Store.open(f"sqlite:///{server.data}/spokes.db") as store:
        do(store, SetTunnelState(client.tunnel, TunnelState.SHUTDOWN))
        call_control(server.data / "control.sock", "changed")
    wait_until(lambda: server.serves(client.hostname, 503), within_s=1)
    wait_until(lambda: "SPK-INACTIVE" in process.log())


def test_token_switched_off_registers_nobody(server, tmp_path):
    token = json.loads(run("spokes", "token", "create", "--data", server.data, "--json").stdout)
    run("spokes", "token", "edit", token["id"], "--inactive", "--data", server.data)
    (tmp_path / "token").write_text(token["value"])
    done = run(
        "spoke", "configure", "--url", f"https://127.0.0.1:{server.https_port}", "--server-key", server.fingerprint,
        "--token-file", tmp_path / "token", "--config", tmp_path / "c.json", code=1,
    )  # fmt: skip
    assert "SPK-INACTIVE" in done.stderr


def test_wrong_server_key_is_refused_by_the_client_before_it_says_anything(server, tmp_path):
    done = run(
        "spoke", "configure", "--url", f"https://127.0.0.1:{server.https_port}", "--server-key", "sha256:" + "0" * 64,
        "--token-file", server.data / "first-token", "--config", tmp_path / "c.json", code=1,
    )  # fmt: skip
    assert "SPK-SERVER-KEY" in done.stderr
    assert "tunnel registered" not in server.log()


def test_sigterm_lets_a_download_end_and_refuses_new_visitors(server, client, web):
    client.start("http", web.port)
    wait_until(lambda: server.serves(client.hostname))
    visitor = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=20)
    visitor.request("GET", "/slow", headers={"Host": client.hostname})
    web.gate.release()
    answer = visitor.getresponse()
    assert answer.read(10) == b"x" * 10
    server.process.send(signal.SIGTERM)
    wait_until(lambda: "draining" in server.log())
    wait_until(lambda: not _connects(server.http_port))
    assert server.process.popen.poll() is None
    web.gate.release(9)
    assert answer.read() == b"x" * 90
    visitor.close()
    assert server.process.popen.wait(8) == 0


def test_second_sigterm_ends_at_once(server, client, web):
    client.start("http", web.port)
    wait_until(lambda: server.serves(client.hostname))
    visitor = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=20)
    visitor.request("GET", "/slow", headers={"Host": client.hostname})
    web.gate.release()
    assert visitor.getresponse().read(10) == b"x" * 10
    server.process.send(signal.SIGTERM)
    wait_until(lambda: "draining" in server.log())
    server.process.send(signal.SIGTERM)
    assert server.process.popen.wait(3) == 0
    web.gate.release(9)


def test_sigint_ends_in_order_and_says_interrupted(server):
    assert server.end(signal.SIGINT) == 130
    assert "Traceback" not in server.log()
    assert not (server.data / "control.sock").exists()


def test_sighup_bad_configuration_changes_nothing_and_a_good_one_acts(tmp_path, web):
    config = tmp_path / "spokes.toml"
    config.write_text('log_level = "info"\n')
    server = ServerProcess(tmp_path, "22000-22003", "--config", config)
    server.start()
    try:
        client = Client(server, tmp_path / "client.json")
        client.start("http", web.port)
        wait_until(lambda: server.serves(client.hostname))
        config.write_text("log_level = 5\n")
        server.process.send(signal.SIGHUP)
        wait_until(lambda: "SPK-CONFIG" in server.log())
        assert f"{config}, line 1" in server.log()
        config.write_text('log_format = "json"\n')
        run("spokes", "reload", "--data", server.data)
        assert json.loads(server.log().splitlines()[-1])["event"] == "configuration read again"
        assert server.serves(client.hostname)
        client.end()
    finally:
        server.end()


def test_garbage_on_every_listener_ends_that_conn_only(server, client, web):
    port = int(client.spoke("tunnel", "tcp", "allocate").stdout.split()[-1])
    client.start("http", web.port)
    wait_until(lambda: server.serves(client.hostname))
    for target in (server.http_port, server.https_port, port):
        for garbage in (b"\x00" * 1000, os.urandom(5000), b"\x16\x03\x01\xff\xff" + b"A" * 100, b"GET / HTTP/1.1\n\n"):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", target), 5) as visitor:
                visitor.sendall(garbage)
                visitor.shutdown(socket.SHUT_WR)
                while visitor.recv(4096):
                    continue
    assert server.get(client.hostname) == (200, b"hello")


def test_garbage_inside_a_link_ends_that_link_only(server, client, web):
    client.start("http", web.port)
    wait_until(lambda: server.serves(client.hostname))
    trusting = ssl.create_default_context(cafile=server.data / "server.crt")
    trusting.set_alpn_protocols(["spokes/1"])
    control = b'{"type":"hello","versions":[1],"agent":{},"time":1}'
    frames = (
        b"\x00\x00\xfe\x00\x00\x00\x00\x00" * 50,                                          # unknown type: skipped
        b"\x00\x07\x08\x00\x00\x00\x00\x00garbage",                                        # CONTROL that is no JSON
        len(control).to_bytes(2, "big") + b"\x08\x00\x00\x00\x00\x00" + control,           # a hello, and then nothing
        b"\xff\xff\x08\x00\x00\x00\x00\x00" + b"x" * 65535,                                # the largest frame
        b"\x00\x04\x02\x00\x00\x00\x00\x05data",                                           # DATA on no stream
        os.urandom(4000),
    )  # fmt: skip
    for frame in frames:
        raw = socket.create_connection(("127.0.0.1", server.https_port), timeout=15)
        with (
            contextlib.suppress(ConnectionError, ssl.SSLError),
            trusting.wrap_socket(raw, server_hostname=DOMAIN) as link,
        ):
            assert link.selected_alpn_protocol() == "spokes/1"
            link.sendall(frame)
            link.settimeout(0.2)
            with contextlib.suppress(TimeoutError):
                while link.recv(4096):
                    continue
    assert server.get(client.hostname) == (200, b"hello")
    assert server.status()["tunnels"]["online"] == 1


def test_port_carries_tcp_and_udp_and_resets_when_its_tunnel_is_offline(server, client, web):
    port = int(client.spoke("tunnel", "tcp", "allocate").stdout.split()[-1])
    with udp_echo() as echo_port:
        client.spoke("tunnel", "tcp", "forward", "--port", port, "--destination", "127.0.0.1", "--dstport", echo_port)
        process = client.start()
        wait_until(lambda: server.status()["tunnels"]["online"] == 1)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as visitor:
            visitor.settimeout(0.5)
            visitor.connect(("127.0.0.1", port))

            def echoes() -> bool:
                visitor.send(b"ping")
                with contextlib.suppress(TimeoutError):
                    return visitor.recv(100) == b"ping"
                return False

            wait_until(echoes)
        process.end()
    wait_until(lambda: server.status()["tunnels"]["online"] == 0)
    with contextlib.suppress(ConnectionResetError), socket.create_connection(("127.0.0.1", port), 5) as visitor:
        assert visitor.recv(1) == b""


def test_second_server_is_told_which_process_is_in_its_way(server, tmp_path):
    pid = server.process.popen.pid
    done = run("spokes", "server", "--data", server.data, code=1)
    assert f"process {pid}" in done.stderr and "SPK-DATA-LOCKED" in done.stderr
    address = f"127.0.0.1:{server.http_port}"
    done = run("spokes", "server", "--data", tmp_path / "other", "--http", address, "--https", "127.0.0.1:0", code=1)
    assert f"{address} is in use by process {pid} (spokes)" in done.stderr


def _connects(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True
