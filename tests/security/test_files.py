"""What lies on disks, in logs and in process lists."""

from __future__ import annotations

import json
import socket
import stat
from pathlib import Path

import pytest

from tests.support.processes import Client, ServerProcess, run, wait_until

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data directory was made by hand, open to all."""
    directory = tmp_path_factory.mktemp("open")
    (directory / "data").mkdir()
    (directory / "data").chmod(0o755)
    return directory


def test_files_are_their_owners_alone_even_in_an_open_directory(server, tenant):
    files = [*server.data.iterdir(), tenant.config, *tenant.config.parent.glob("*.api")]
    assert {path.name for path in files} >= {"spokes.db", "server.key", "first-token", "control.sock", "tenant.json"}
    modes = {path.name: oct(stat.S_IMODE(path.stat().st_mode)) for path in files}
    assert {name: mode for name, mode in modes.items() if int(mode, 8) & 0o077} == {}


def test_secrets_are_in_no_log_and_no_process_list(server: ServerProcess, tenant: Client):
    secrets = [
        json.loads(tenant.config.read_text())["key"],
        (server.data / "first-token").read_text().strip(),
        *(line for line in (server.data / "server.key").read_text().splitlines() if "-----" not in line),
    ]
    pids = [server.process.popen.pid, *(process.popen.pid for process in tenant.processes)]
    seen = [server.log(), *(process.log() for process in tenant.processes)]
    seen += [Path(f"/proc/{pid}/cmdline").read_text() for pid in pids]
    seen += [json.dumps(server.status()), run("spokes", "token", "list", "--data", server.data).stdout]
    seen += [tenant.spoke("info").stdout, tenant.spoke("info", "--json").stdout]
    assert [secret[:4] for secret in secrets for text in seen if secret in text] == []


def test_control_socket_takes_garbage_and_serves_on(server, tenant):
    for words in (b"\xff\x00\n", b"[]\n", b'{"op":{}}\n', b"[" * 60_000 + b"\n", b"x" * 200_000, b'{"op":"status"'):
        with socket.socket(socket.AF_UNIX) as caller:
            caller.settimeout(10)
            caller.connect(str(server.data / "control.sock"))
            try:
                caller.sendall(words)
                caller.shutdown(socket.SHUT_WR)
                while caller.recv(65536):
                    continue
            except (BrokenPipeError, ConnectionResetError):
                continue
    wait_until(lambda: server.serves(tenant.hostname))
    assert server.status()["tunnels"]["online"] == 1
    assert "Traceback" not in server.log()
