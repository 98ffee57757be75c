"""The administration as a child of the server: real gunicorn, real engine, a stand-in for the program."""

import asyncio
import contextlib
import dataclasses
import http.client
import json
import os
import signal
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from spokes._fastpath.engine import ListenerKind
from spokes.config import ServerConfig
from spokes.server.process.admin_process import SOCKET_NAME, AdminProcess, admin_command
from spokes.server.process.app import Server
from spokes.supervisor import Supervisor
from tests.server.conftest import DOMAIN
from tests.support.eventually import eventually

ROOT = Path(__file__).resolve().parents[3]


def stand_in(_config, directory: Path, _server_key: str, _https_port: int, *, workers: int = 1) -> list[str]:
    return [
        sys.executable, "-m", "spokes.server.process.child", str(os.getpid()), "gunicorn", "--chdir", str(ROOT),
        "--bind", f"unix:{directory / SOCKET_NAME}", "--worker-class", "gthread", "--threads", "4",
        "--workers", str(workers), "--keep-alive", "60", "--no-control-socket", "--log-level", "error",
        "tests.support.admin_stand_in:application",
    ]  # fmt: skip


@pytest.fixture
async def server(config):
    server = Server(dataclasses.replace(config, admin=True), make_admin_command=stand_in)
    await server.start()
    yield server
    server.force_stop()
    await server.stop()


def ask(server: Server, *, headers: dict[str, str] | None = None, path: str = "/where"):
    """Status, headers, body of one visitor's request over plain HTTP."""
    conn = http.client.HTTPConnection("127.0.0.1", server.addresses(ListenerKind.HTTP)[0].port, timeout=5)
    return _exchange(conn, DOMAIN, headers or {}, path)


def tls_ask(server: Server, server_name: str, host: str = DOMAIN):
    conn = http.client.HTTPConnection("127.0.0.1", server.addresses(ListenerKind.TLS)[0].port, timeout=5)
    conn.connect()
    conn.sock = ssl._create_unverified_context().wrap_socket(conn.sock, server_hostname=server_name)
    return _exchange(conn, host, {})


def _exchange(conn: http.client.HTTPConnection, host: str, headers: dict[str, str], path: str = "/where"):
    try:
        conn.request("GET", path, headers={"Host": host, **headers})
        answer = conn.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        conn.close()


async def served(server: Server, within_s: float = 15.0) -> dict:
    """What the stand-in says, once it answers."""
    answers: list[dict] = []

    async def try_it() -> bool:
        with contextlib.suppress(OSError, http.client.HTTPException):
            status, _, body = await asyncio.to_thread(ask, server)
            if status == 200:
                answers.append(json.loads(body))
        return bool(answers)

    deadline = asyncio.get_running_loop().time() + within_s
    while not await try_it():
        assert asyncio.get_running_loop().time() < deadline, "the administration does not answer"
        await asyncio.sleep(0.02)
    return answers[0]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_own_name_reaches_the_administration_with_the_visitor_address(server):
    await served(server)
    forged = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https", "X_Forwarded_For": "203.0.113.9"}
    _, _, body = await asyncio.to_thread(ask, server, headers=forged)
    facts = json.loads(body)
    assert facts["path"] == "/where"
    assert facts["HTTP_X_FORWARDED_FOR"] == "127.0.0.1"
    assert facts["HTTP_X_FORWARDED_PROTO"] == "http"
    assert "203.0.113.9" not in body.decode()


async def test_own_name_over_tls_is_said_to_be_secure(server):
    await served(server)
    status, _, body = await asyncio.to_thread(tls_ask, server, DOMAIN)
    assert status == 200
    assert json.loads(body)["HTTP_X_FORWARDED_PROTO"] == "https"


async def test_own_name_conn_asked_for_a_name_it_does_not_cover_is_misdirected(server):
    status, headers, _ = await asyncio.to_thread(tls_ask, server, DOMAIN, "shop.example.org")
    assert (status, headers["X-Spokes-Code"]) == (421, "SPK-MISDIRECTED")


async def test_admin_not_yet_up_is_a_page_that_says_when_to_come_back(config):
    def never(*_args):
        return [sys.executable, "-c", "import time; time.sleep(60)"]

    server = Server(dataclasses.replace(config, admin=True), make_admin_command=never)
    await server.start()
    try:
        status, headers, _ = await asyncio.to_thread(ask, server)
        assert (status, headers["X-Spokes-Code"], headers["Retry-After"]) == (503, "SPK-ADMIN-DOWN", "2")
        assert headers["Content-Type"].startswith("text/html")
        status, headers, body = await asyncio.to_thread(ask, server, path="/api/admin/v1.0/info")
        assert (status, headers["Content-Type"]) == (503, "application/json")
        assert json.loads(body)["status"] is False
    finally:
        server.force_stop()
        await server.stop()


@pytest.mark.parametrize("victim", ["pid", "parent"])
async def test_admin_killed_is_back_within_two_seconds(server, victim):
    before = await served(server)
    os.kill(before[victim], signal.SIGKILL)
    await eventually(lambda: not is_alive(before["pid"]))
    after = await served(server, within_s=2.0)
    assert after["pid"] != before["pid"]


async def test_admin_master_killed_leaves_no_worker_behind(server):
    before = await served(server)
    os.kill(before["parent"], signal.SIGKILL)
    await eventually(lambda: not is_alive(before["pid"]))
    after = await served(server)
    assert after["parent"] == server.admin.pid != before["parent"]
    assert server.admin.start_count == 2


async def test_admin_ends_with_the_server(config):
    server = Server(dataclasses.replace(config, admin=True), make_admin_command=stand_in)
    await server.start()
    facts = await served(server)
    await server.stop()
    assert not is_alive(facts["pid"])
    assert not is_alive(facts["parent"])


async def test_admin_that_cannot_run_is_tried_again_ever_more_slowly(caplog, tmp_path):
    process = AdminProcess([sys.executable, "-c", "raise SystemExit(3)"], dict(os.environ), socket_path=tmp_path / "s")
    process.start()
    await eventually(lambda: process.start_count == 3)
    await process.stop()
    waits = [record.wait_s for record in caplog.records if record.msg == "administration ended"]
    assert waits[:2] == [0.0, 0.25]
    assert "exit code 3" in {record.why for record in caplog.records if record.msg == "administration ended"}


async def test_admin_runs_in_a_directory_that_every_user_may_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = [sys.executable, "-c", f"import os; open({str(tmp_path / 'where')!r}, 'w').write(os.getcwd() + ';')"]
    process = AdminProcess(command, dict(os.environ), socket_path=tmp_path / "s")
    process.start()
    await eventually(lambda: (tmp_path / "where").exists() and (tmp_path / "where").read_text() == "/;")
    await process.stop()
    words = admin_command(ServerConfig(domain=DOMAIN), Path("data"), "", 443)
    assert words[words.index("--data") + 1] == str(tmp_path / "data")


async def test_admin_command_that_does_not_exist_is_no_fault_of_the_server(caplog, tmp_path):
    process = AdminProcess(["/nowhere/python"], {}, socket_path=tmp_path / "s")
    process.start()
    await eventually(lambda: any("not started" in getattr(record, "why", "") for record in caplog.records))
    await process.stop()
    assert process.pid == 0


SILENT = """
import contextlib, os, socket, sys, time
with contextlib.suppress(FileNotFoundError):
    os.unlink(sys.argv[1])
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
time.sleep(60)
"""


async def test_admin_that_hangs_is_killed_and_started_again(caplog, tmp_path):
    path = tmp_path / "s"
    command = [sys.executable, "-c", SILENT, str(path)]
    supervisor = Supervisor()
    process = AdminProcess(
        command, dict(os.environ), socket_path=path, probe_interval_s=0.05, hang_s=0.5, supervisor=supervisor
    )
    process.start()
    await eventually(lambda: process.start_count == 2)
    assert [one["name"] for one in supervisor.figures()] == ["administration", "administration's answers"]
    await process.stop()
    assert "administration hangs" in {record.msg for record in caplog.records}
    assert "signal 9" in {record.why for record in caplog.records if record.msg == "administration ended"}


async def test_admin_that_answers_is_left_alone(server):
    facts = await served(server)
    watched = server.admin
    assert watched is not None
    assert await watched._answers()
    os.kill(facts["parent"], signal.SIGSTOP)             # its worker goes on
    try:
        assert await watched._answers()
    finally:
        os.kill(facts["parent"], signal.SIGCONT)


def test_child_ends_when_its_parent_is_killed(tmp_path):
    """The parent is a program of its own, so that it can be killed."""
    told = tmp_path / "pid"
    (tmp_path / "sleeper.py").write_text(
        f"import os, pathlib, time\npathlib.Path({str(told)!r}).write_text(str(os.getpid()))\ntime.sleep(60)\n"
    )
    parent = subprocess.Popen(
        [
            sys.executable, "-c",
            "import os, subprocess, sys, time\n"
            "subprocess.Popen([sys.executable, '-m', 'spokes.server.process.child', str(os.getpid()), 'sleeper'])\n"
            "time.sleep(60)",
        ],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"},
    )  # fmt: skip
    try:
        asyncio.run(eventually(lambda: told.exists() and told.read_text()))
        child = int(told.read_text())
        assert is_alive(child)
    finally:
        parent.kill()
        parent.wait()
    asyncio.run(eventually(lambda: not is_alive(child)))
