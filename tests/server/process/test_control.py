"""The control socket: private, one answer for each line, whatever the line."""

import asyncio
import json
import stat

import pytest

from spokes.control import call_control
from spokes.errors import ControlError, DataDirError, NoServerError, NotFoundError
from spokes.server.process import control as server_control
from spokes.server.process.control import LINE_BYTES_MAX, ControlSocket


async def echo(args):
    return args


async def refuse(args):
    raise NotFoundError("no such thing")


async def fail(args):
    raise RuntimeError("secret detail")


@pytest.fixture
async def path(tmp_path):
    path = tmp_path / "control.sock"
    control = ControlSocket(path, {"echo": echo, "refuse": refuse, "fail": fail})
    await control.start()
    yield path
    await control.close()
    assert not path.exists()


async def ask(path, *lines: bytes):
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.writelines(lines)
    writer.write_eof()
    answers = [json.loads(line) for line in (await reader.read()).splitlines()]
    writer.close()
    return answers


async def test_control_socket_is_its_owners_only(path):
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_control_call_is_answered(path):
    assert await asyncio.to_thread(call_control, path, "echo", id="x") == {"id": "x"}


async def test_control_refusal_and_fault_are_told_without_details(path):
    with pytest.raises(ControlError, match="no such thing") as refused:
        await asyncio.to_thread(call_control, path, "refuse")
    assert refused.value.line() == "the server refused: no such thing [SPK-NOT-FOUND]"
    with pytest.raises(ControlError) as failed:
        await asyncio.to_thread(call_control, path, "fail")
    assert "secret" not in str(failed.value)


@pytest.mark.parametrize(
    "line", [b"\n", b"[]\n", b"{\n", b"\xff\n", b'{"op": 4}\n', b'{"op": "none"}\n', b"[" * 9999 + b"\n"]
)
async def test_control_bad_line_is_an_error_and_the_next_is_answered(path, line):
    answers = await ask(path, line, b'{"op": "echo"}\n')
    assert answers[0]["error"]["code"] == "SPK-PROTOCOL"
    assert answers[1] == {"result": {}}


async def test_control_endless_line_is_cut_and_others_go_on(path):
    assert await ask(path, b"x" * (LINE_BYTES_MAX * 2)) == []
    assert await ask(path, b'{"op": "echo"}\n') == [{"result": {}}]


async def test_control_socket_left_by_a_killed_server_is_replaced(tmp_path):
    path = tmp_path / "control.sock"
    path.write_text("left behind")
    control = ControlSocket(path, {"echo": echo})
    await control.start()
    assert await ask(path, b'{"op": "echo"}\n') == [{"result": {}}]
    await control.close()


def test_control_call_without_a_server_says_so(tmp_path):
    with pytest.raises(NoServerError, match="no server runs"):
        call_control(tmp_path / "control.sock", "status")


def test_control_call_that_may_not_look_says_so_and_not_that_no_server_runs(tmp_path, monkeypatch):
    def refuse(self, address):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("socket.socket.connect", refuse)
    with pytest.raises(ControlError, match="may not look there") as caught:
        call_control(tmp_path / "control.sock", "status")
    assert not isinstance(caught.value, NoServerError)


async def test_control_path_too_long_is_a_clear_error(tmp_path):
    directory = tmp_path / ("x" * 120)
    directory.mkdir()
    with pytest.raises(DataDirError, match=r"control\.sock"):
        await ControlSocket(directory / "control.sock", {}).start()


@pytest.mark.parametrize("fate", ["deleted", "moved away", "replaced by a file"])
async def test_control_socket_that_is_taken_away_is_made_again(tmp_path, monkeypatch, fate):
    monkeypatch.setattr(server_control, "CHECK_INTERVAL_S", 0.02)
    path, made = tmp_path / "control.sock", asyncio.Event()
    control = ControlSocket(path, {"echo": echo})
    await control.start()
    keeper = asyncio.get_running_loop().create_task(control.keep(made.set))
    try:
        for _ in range(2):
            if fate == "moved away":
                path.rename(tmp_path / "elsewhere")
            else:
                path.unlink()
            if fate == "replaced by a file":
                path.write_text("nothing")
            await asyncio.wait_for(made.wait(), 10)
            made.clear()
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert await ask(path, b'{"op": "echo", "x": 1}\n') == [{"result": {"x": 1}}]
    finally:
        keeper.cancel()
        await control.close()
    assert not path.exists()
