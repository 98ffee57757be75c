"""A standby's probes and its lock, against real sockets."""

import asyncio
import contextlib
import dataclasses
import ssl

import pytest

from spokes.config_values import Address
from spokes.control import call_control, standby_status
from spokes.resolver import Answer
from spokes.server.base.datadir import DataLock, prepare_directory
from spokes.server.certificates.certificates import ensure_certificates
from spokes.server.process.standby import LINK_ALPN, Standby
from tests.server.conftest import DOMAIN
from tests.support.eventually import eventually


async def resolve(_host):
    return Answer(("127.0.0.2", "127.0.0.1"))       # nothing listens at the first one


@contextlib.asynccontextmanager
async def answering(tmp_path, protocols):
    """The port of a TLS server that chooses from these protocols."""
    folder = prepare_directory(tmp_path / "certificates")
    ensure_certificates(folder, DOMAIN)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.crt", folder / "server.key")
    if protocols:
        context.set_alpn_protocols(protocols)
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


@contextlib.asynccontextmanager
async def silent(_tmp_path, _protocols):
    async with await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


@contextlib.asynccontextmanager
async def refusing(_tmp_path, _protocols):
    async with await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
    yield port


def standby(config, port, **changes):
    values = {"https": (Address("", port),), "ha_interval_s": 0.1, "ha_failures": 3, "ha_timeout_s": 0.5} | changes
    return Standby(dataclasses.replace(config, **values), resolve=resolve)


@pytest.mark.parametrize(
    ("peer", "protocols", "words"),
    [
        (answering, [LINK_ALPN], "answers"),
        (answering, ["http/1.1"], "what answers is no Spokes server"),
        (answering, [], "what answers is no Spokes server"),
        (silent, [], "no answer within 0.5 s"),
        (refusing, [], "refused"),
    ],
)
async def test_probe_takes_nothing_but_a_spokes_server_for_the_primary(config, tmp_path, peer, protocols, words):
    async with peer(tmp_path, protocols) as port:
        waiting = standby(config, port, ha_failures=1)
        assert await waiting._has_failed() == (words != "answers")
    facts = await waiting.status({})
    assert words in facts["primary"]
    assert facts["role"] == "standby"


async def test_standby_takes_the_lock_after_its_failures_and_not_while_another_holds_it(config, tmp_path):
    directory = prepare_directory(config.data)
    primary = DataLock(directory)
    async with refusing(tmp_path, ()) as port:
        waiting = standby(config, port)
        task = asyncio.create_task(waiting.wait())
        await eventually(lambda: waiting._failure_count > 4)
        assert not task.done()
        facts = await asyncio.to_thread(standby_status, directory)
        assert (facts["lock_held"], facts["failures_allowed"]) == (True, 3)
        primary.close()
        lock = await task
    assert list(directory.glob("standby-*.sock")) == []
    lock.close()


async def test_standby_that_sees_the_primary_again_counts_from_nothing(config, tmp_path):
    prepare_directory(config.data)
    async with answering(tmp_path, [LINK_ALPN]) as port:
        waiting = standby(config, port)
        waiting._failure_count = 2
        task = asyncio.create_task(waiting.wait())
        await eventually(lambda: waiting._failure_count == 0)
        assert not task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_standby_removes_sockets_that_killed_ones_of_this_host_left(config, tmp_path):
    directory = prepare_directory(config.data)
    async with answering(tmp_path, [LINK_ALPN]) as port:
        first = asyncio.create_task(standby(config, port).wait())
        await eventually(lambda: list(directory.glob("standby-*.sock")))
        (path,) = directory.glob("standby-*.sock")
        assert await asyncio.to_thread(call_control, path, "health") == {}
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        left = path.with_name(path.name.rpartition("-")[0] + "-4194305.sock")    # above every process id
        others = path.with_name("standby-00000000-4194305.sock")
        left.touch()
        others.touch()
        second = asyncio.create_task(standby(config, port).wait())
        await eventually(path.exists)
        assert (left.exists(), others.exists()) == (False, True)
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)


async def test_of_two_standbys_that_have_seen_enough_failures_one_gets_the_lock(config, tmp_path):
    async with refusing(tmp_path, ()) as port:
        standbys = [standby(config, port), standby(config, port)]
        tasks = [asyncio.create_task(one.wait()) for one in standbys]
        done, (left,) = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        other = standbys[tasks.index(left)]
        failure_count = other._failure_count
        await eventually(lambda: other._failure_count > failure_count + 2)
        assert other._is_locked
        assert not left.done()
        left.cancel()
        await asyncio.gather(left, return_exceptions=True)
    (task,) = done
    task.result().close()
