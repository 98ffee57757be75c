"""The verbs that administer beside a running server: it acts before they return."""

import contextlib
import json
import os
import pty
import select
import socket
import subprocess
import threading

import pytest

from spokes.store import Store
from tests.e2e.conftest import client, server, web  # noqa: F401  a server, a client and a service, as real processes
from tests.support.processes import BIN, DOMAIN, clean_environment, run, wait_until

pytestmark = pytest.mark.e2e


@pytest.fixture
def spokes(server):  # noqa: F811
    def type_verb(*args, code=0):
        return run("spokes", *args, "--data", server.data, code=code)

    return type_verb


def facts(done):
    return json.loads(done.stdout)


def test_user_deactivated_and_active_again_cuts_and_admits_the_tunnel(spokes, server, client, web):  # noqa: F811
    spokes("user", "create", "--email", "mara@example.org")
    spokes("tunnel", "assign", client.hostname, "mara@example.org")
    client.start("http", web.port)
    wait_until(lambda: server.serves(client.hostname))
    shown = facts(spokes("tunnel", "list", "--state", "online", "--json"))["tunnels"]
    assert [(one["id"], one["state"]) for one in shown] == [(client.tunnel, 2)]
    spokes("user", "deactivate", "mara@example.org")
    assert server.get(client.hostname)[0] == 503
    assert facts(spokes("tunnel", "list", "--state", "online", "--json"))["total"] == 0
    spokes("user", "activate", "mara@example.org")
    client.start("http", web.port)
    wait_until(lambda: server.serves(client.hostname))


def test_tunnel_shut_down_stopped_and_deleted_is_gone_when_the_verb_returns(spokes, server, client, web):  # noqa: F811
    for verb, back in (("shutdown", "start"), ("stop", None), ("delete", None)):
        process = client.start("http", web.port)
        wait_until(lambda: server.serves(client.hostname))
        spokes("tunnel", verb, client.hostname, *(["--yes"] if verb == "delete" else []))
        assert server.get(client.hostname)[0] in (404, 503)
        process.end()
        if back:
            spokes("tunnel", back, client.hostname)
    done = spokes("tunnel", "show", client.tunnel, code=1)
    assert "[SPK-NOT-FOUND]" in done.stderr


def test_port_allocated_comes_from_the_running_servers_range_and_listens(spokes, server, client):  # noqa: F811
    begin, _, end = server.tcp_ports.partition("-")
    port = facts(spokes("port", "allocate", client.hostname, "--json"))["port"]
    assert int(begin) <= port <= int(end)
    assert facts(spokes("port", "range", "--json")) == {"begin": int(begin), "end": int(end), "used": 1}
    assert f"| {port} " in spokes("port", "list").stdout
    with contextlib.suppress(ConnectionResetError):  # its tunnel is off-line
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    spokes("port", "release", port)
    assert facts(spokes("port", "list", "--json")) == {"ports": []}
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)


def test_tunnel_made_by_the_shell_gets_the_servers_domain_and_its_config_is_a_clients(
    spokes, server, web, tmp_path  # noqa: F811
):
    made = facts(spokes("tunnel", "create", "--name", "branch 7", "--json"))
    assert made["tunnel"]["hostname"].endswith("." + DOMAIN)
    config = facts(spokes("tunnel", "config", made["tunnel"]["id"], "--secrets"))
    assert config["key"] == made["token"]["value"]
    assert config["serverHost"] == f"{DOMAIN}:{server.https_port}"
    assert "key" not in facts(spokes("tunnel", "config", made["tunnel"]["id"]))
    file = tmp_path / "made.json"
    file.write_text(json.dumps(config | {"serverHost": f"127.0.0.1:{server.https_port}"}))
    file.chmod(0o600)
    client = subprocess.Popen(  # noqa: F811
        [BIN / "spoke", "http", str(web.port), "--config", file], stdout=subprocess.DEVNULL, env=clean_environment()
    )
    try:
        wait_until(lambda: server.serves(config["hostname"]))
    finally:
        client.kill()
        client.wait()


def test_restore_and_copy_are_refused_and_backup_works(spokes, server, tmp_path):  # noqa: F811
    spokes("backup", tmp_path / "b.db")
    assert "[SPK-DATA-LOCKED]" in spokes("restore", tmp_path / "b.db", "--force", code=1).stderr
    done = spokes("db", "copy", server.data / "spokes.db", tmp_path / "c.db", code=1)
    assert "[SPK-DATA-LOCKED]" in done.stderr


def test_webhook_test_is_delivered_or_its_failure_listed(spokes):
    made = facts(spokes("webhook", "create", "http://127.0.0.1:1/", "--allow-private", "--kind", "alert", "--json"))
    spokes("webhook", "test", made["id"])

    def tried():
        sent = facts(spokes("webhook", "deliveries", made["id"], "--json"))["deliveries"]
        return [one for one in sent if one["kind"] == "test" and one["failure"]]

    wait_until(tried)
    spokes("webhook", "resend", tried()[0]["id"])


def test_events_followed_show_what_happens_meanwhile(spokes, server):  # noqa: F811
    following = subprocess.Popen(
        [BIN / "spokes", "events", "list", "--follow", "--json", "--action", "user", "--data", server.data],
        stdout=subprocess.PIPE, text=True, env=clean_environment(),
    )  # fmt: skip
    give_up = threading.Timer(30, following.kill)
    give_up.start()
    try:
        spokes("user", "create", "--email", "mara@example.org")
        spokes("token", "create")
        assert json.loads(following.stdout.readline())["action"] == "user.create"
        spokes("user", "edit", "mara@example.org", "--phone", "1")
        assert json.loads(following.stdout.readline())["action"] == "user.edit"
        following.send_signal(2)
        assert following.wait(10) == 130
    finally:
        give_up.cancel()
        following.kill()
        following.stdout.close()


def test_terminal_is_asked_for_a_password_and_shown_tables(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    Store.open(f"sqlite:///{data / 'spokes.db'}").close()
    run("spokes", "user", "create", "--email", "mara@example.org", "--data", data)
    out = on_terminal(["user", "password", "mara@example.org", "--data", data], "correct horse battery\n" * 2)
    assert "New password" in out
    assert "is set" in out
    assert "correct horse" not in out
    out = on_terminal(["user", "list", "--data", data], "")
    assert "│ mara@example.org" in out
    out = on_terminal(["user", "delete", "mara@example.org", "--data", data], "n\n")
    assert "0 tunnels for good?" in out
    assert json.loads(run("spokes", "user", "list", "--json", "--data", data).stdout)["users"]


def on_terminal(args: list[object], typed: str) -> str:
    """What a terminal of 160 columns shows."""
    pid, terminal = pty.fork()
    if pid == 0:
        environment = clean_environment() | {"COLUMNS": "160", "TERM": "xterm"}
        os.execve(BIN / "spokes", ["spokes", *map(str, args)], environment)
    shown, lines = b"", typed.splitlines(keepends=True)
    try:
        while select.select([terminal], [], [], 30)[0]:
            try:
                piece = os.read(terminal, 4096)
            except OSError:
                break
            if not piece:
                break
            shown += piece
            if lines and shown.endswith(b": "):  # the blank comes when nothing is echoed any more
                os.write(terminal, lines.pop(0).encode())
    finally:
        os.close(terminal)
        os.waitpid(pid, 0)
    return shown.decode()
