import asyncio
import json
import stat

import pytest

from spokes.client import local_api
from spokes.client.access_file import access_path
from spokes.client.local_api import LocalApi
from spokes.client.local_caller import LocalCaller
from spokes.errors import AddressInUseError, NotFoundError, RemoteError, UnreachableError


class Performer:
    def __init__(self):
        self.done = []

    async def perform(self, op, args):
        if op == "unknown":
            raise NotFoundError("no operation 'unknown'", hint="see the documentation")
        if op == "broken":
            raise ValueError("not a number")
        self.done.append((op, args))
        return {"echo": args}


@pytest.fixture
def performer():
    return Performer()


@pytest.fixture
async def api(config_path, performer):
    api = LocalApi(config_path, status=lambda: {"pid": __import__("os").getpid()}, perform=performer.perform)
    await api.start(0)
    yield api
    await api.stop()


async def ask(api, head, body=b""):
    """One raw request; status and decoded body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    writer.write(head.encode().replace(b"\n", b"\r\n") + b"\r\n" + body)
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    head_bytes, _, body_bytes = answer.partition(b"\r\n\r\n")
    return int(head_bytes.split()[1]), json.loads(body_bytes)


def post(api, body, *, token=None, extra="", content_type="application/json"):
    token = api._token if token is None else token
    return (
        f"POST /operations HTTP/1.1\nHost: 127.0.0.1:{api.port}\nAuthorization: Bearer {token}\n"
        f"Content-Type: {content_type}\nContent-Length: {len(body)}\n{extra}"
    )


BODY = json.dumps({"op": "http.add", "args": {"domain": "a"}}).encode()


async def test_status_needs_no_token(api):
    status, answer = await ask(api, f"GET /status HTTP/1.1\nHost: localhost:{api.port}\n")
    assert status == 200
    assert answer["pid"] > 0


async def test_operation_with_token_is_performed(api, performer):
    status, answer = await ask(api, post(api, BODY), BODY)
    assert (status, answer) == (200, {"result": {"echo": {"domain": "a"}}})
    assert performer.done == [("http.add", {"domain": "a"})]


@pytest.mark.parametrize("token", ["", "wrong", "é"])
async def test_operation_without_token_is_refused(api, performer, token):
    status, answer = await ask(api, post(api, BODY, token=token), BODY)
    assert status == 401
    assert answer["error"]["code"] == "SPK-TOKEN"
    assert performer.done == []


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "127.0.0.1.nip.io:4100", ""])
async def test_foreign_host_is_refused_before_anything(api, performer, host):
    status, _ = await ask(api, f"GET /status HTTP/1.1\nHost: {host}\n")
    assert status == 421


async def test_foreign_origin_is_refused_even_with_the_token(api, performer):
    status, _ = await ask(api, post(api, BODY, extra="Origin: https://evil.example\n"), BODY)
    assert status == 403
    assert performer.done == []


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (BODY, "text/plain", 415),
        (b"[]", "application/json", 400),
        (b"{", "application/json", 400),
        (b'{"op": "x", "args": [1]}', "application/json", 400),
        (b'{"op": "unknown"}', "application/json", 404),
        (b'{"op": "broken"}', "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
    ],
)
async def test_operation_bad_body_gets_an_error_object(api, body, content_type, status):
    assert (await ask(api, post(api, body, content_type=content_type), body))[0] == status


@pytest.mark.parametrize("head", ["GARBAGE\n", "GET /status HTTP/1.1\n", "GET /status HTTP/1.1\nHost : x\n"])
async def test_garbage_gets_400(api, head):
    assert (await ask(api, head))[0] == 400


async def test_body_too_long_is_refused(api, monkeypatch):
    monkeypatch.setattr(local_api, "BODY_BYTES_MAX", 10)
    assert (await ask(api, post(api, BODY), BODY))[0] == 413


async def test_slow_head_is_cut(api, monkeypatch):
    monkeypatch.setattr(local_api, "HEAD_DEADLINE_S", 0.05)
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    writer.write(b"GET /sta")
    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()


async def test_unknown_path_is_404(api):
    assert (await ask(api, f"GET /secrets HTTP/1.1\nHost: localhost:{api.port}\n"))[0] == 404


async def test_access_file_is_the_owners_and_goes_with_the_api(api, config_path):
    path = access_path(config_path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert json.loads(path.read_text())["port"] == api.port
    await api.stop()
    assert not path.exists()


async def test_access_file_of_a_successor_is_left_alone(api, config_path, performer):
    later = LocalApi(config_path, status=dict, perform=performer.perform)
    await later.start(0)
    await api.stop()
    assert access_path(config_path).exists()
    await later.stop()


async def test_start_default_port_taken_another_is_used(config_path, performer, api, monkeypatch):
    monkeypatch.setattr(local_api, "DEFAULT_PORT", api.port)
    second = LocalApi(config_path.with_name("other.json"), status=dict, perform=performer.perform)
    await second.start()
    assert second.port not in (0, api.port)
    await second.stop()


async def test_start_chosen_port_taken_is_an_error(config_path, performer, api):
    second = LocalApi(config_path.with_name("other.json"), status=dict, perform=performer.perform)
    with pytest.raises(AddressInUseError, match=str(api.port)):
        await second.start(api.port)


async def test_caller_finds_the_running_client_and_performs(api, config_path):
    caller = await asyncio.to_thread(LocalCaller.find, config_path)
    assert caller is not None
    assert await asyncio.to_thread(caller.perform, "x", {"a": 1}) == {"echo": {"a": 1}}
    with pytest.raises(RemoteError) as caught:
        await asyncio.to_thread(caller.perform, "unknown", {})
    assert (caught.value.code, caught.value.hint) == ("SPK-NOT-FOUND", "see the documentation")


async def test_caller_file_of_a_killed_client_does_not_count(config_path, unused_tcp_port):
    document = {"address": "127.0.0.1", "port": unused_tcp_port, "token": "t", "pid": 1}
    access_path(config_path).write_text(json.dumps(document))
    assert LocalCaller.find(config_path) is None


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"address": 5, "port": "x", "token": 1, "pid": 2}'])
def test_caller_damaged_access_file_does_not_count(config_path, text):
    access_path(config_path).write_text(text)
    assert LocalCaller.find(config_path) is None


async def test_caller_client_gone_meanwhile_says_so(api, config_path):
    caller = await asyncio.to_thread(LocalCaller.find, config_path)
    await api.stop()
    with pytest.raises(UnreachableError, match="does not answer"):
        await asyncio.to_thread(caller.perform, "x", {})
