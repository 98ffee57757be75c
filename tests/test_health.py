"""The health check of containers: 0 while the event loop of the server answers."""

import asyncio
import subprocess
import sys

from spokes.control import CONTROL_SOCKET_NAME
from tests.support.processes import clean_environment


async def check(directory) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-m", "spokes.health", directory, stderr=subprocess.PIPE, env=clean_environment()
    )
    _, said = await process.communicate()
    return process.returncode, said.decode()


async def test_health_nobody_there_is_one_line_and_one(tmp_path):
    code, said = await check(tmp_path)
    assert code == 1
    assert "SPK-NO-SERVER" in said and said.count("\n") == 1


async def test_health_server_that_accepts_and_does_not_answer_is_one(tmp_path):
    server = await asyncio.start_unix_server(lambda reader, writer: writer.close(), tmp_path / CONTROL_SOCKET_NAME)
    async with server:
        code, said = await check(tmp_path)
    assert code == 1 and "did not answer" in said


async def test_health_server_that_answers_is_zero(tmp_path):
    asked = []

    async def answer(reader, writer):
        asked.append(await reader.readline())
        writer.write(b'{"result": {}}\n')
        await writer.drain()
        writer.close()

    async with await asyncio.start_unix_server(answer, tmp_path / CONTROL_SOCKET_NAME):
        assert await check(tmp_path) == (0, "")
    assert asked == [b'{"op": "health"}\n']
