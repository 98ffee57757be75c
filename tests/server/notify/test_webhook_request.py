"""One delivery against receivers that behave, and receivers that do not."""

import asyncio
import ssl

import pytest

from spokes.resolver import Resolver
from spokes.server.certificates.certificates import ensure_certificate
from spokes.server.notify.resolver import SharedResolver
from spokes.server.notify.webhook_request import Outcome, post
from tests.support.eventually import eventually
from tests.support.webhook_receiver import webhook_receiver

CONTEXT = ssl.create_default_context()


async def send(url, body=b"{}", headers=(), *, allow_private=True, context=CONTEXT, deadline_s=5.0):
    lookup = SharedResolver(Resolver().addresses)
    return await post(
        url, headers, body, allow_private=allow_private, context=context, lookup=lookup, deadline_s=deadline_s
    )


async def test_post_brings_body_and_headers(tmp_path):
    async with webhook_receiver() as receiver:
        outcome = await send(receiver.url + "?a=b", b'{"x":1}', [("webhook-id", "7")])
        (got,) = receiver.posts
    assert outcome == Outcome(200, "")
    assert outcome.delivered
    assert got.head == "POST /hook?a=b HTTP/1.1"
    assert got.body == b'{"x":1}'
    assert got.headers["content-type"] == "application/json"
    assert got.headers["webhook-id"] == "7"
    assert got.headers["host"] == f"127.0.0.1:{receiver.port}"


async def test_post_to_an_address_inside_never_connects():
    async with webhook_receiver() as receiver:
        outcome = await send(receiver.url, allow_private=False)
        assert (outcome.http_status, outcome.delivered) == (0, False)
        assert "not a public address" in outcome.error
        assert receiver.connections == 0


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_post_redirect_is_not_followed(status):
    async with webhook_receiver() as other, webhook_receiver() as receiver:
        receiver.answer = f"HTTP/1.1 {status} Elsewhere\r\nLocation: {other.url}\r\nContent-Length: 0\r\n\r\n".encode()
        assert await send(receiver.url) == Outcome(status, "redirects are not followed")
        assert other.connections == 0


async def test_post_hanging_target_ends_at_the_deadline():
    async with webhook_receiver() as receiver:
        receiver.hangs = True
        outcome = await send(receiver.url, deadline_s=0.3)
    assert outcome == Outcome(0, "no answer within 0.3 s")


async def test_post_endless_answer_is_left_after_its_head():
    async with webhook_receiver() as receiver:
        receiver.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n"
        receiver.endless = True
        assert (await send(receiver.url)).delivered
        assert receiver.bytes_sent < 32 << 20


@pytest.mark.parametrize(
    "head", [b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 100 Continue\r\n\r\n" * 10_000, b"\0" * 100_000, b"x" * 100_000]
)
async def test_post_endless_head_is_cut(head):
    async with webhook_receiver() as receiver:
        receiver.answer, receiver.endless = head, True
        outcome = await send(receiver.url)
        assert (outcome.http_status, outcome.delivered) == (0, False)
        assert receiver.bytes_sent < 32 << 20


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 ", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 abc OK\r\n\r\n"])
async def test_post_garbage_or_nothing_is_no_answer(answer):
    async with webhook_receiver() as receiver:
        receiver.answer = answer
        outcome = await send(receiver.url)
    assert outcome.http_status == 0
    assert "not HTTP" in outcome.error


@pytest.mark.parametrize("status", [400, 404, 410, 429, 500, 503])
async def test_post_refusal_is_told(status):
    async with webhook_receiver() as receiver:
        receiver.answer = f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n".encode()
        assert await send(receiver.url) == Outcome(status, f"answered {status}")


async def test_post_nobody_listens_is_told():
    async with webhook_receiver() as receiver:
        url = receiver.url
    outcome = await send(url)
    assert outcome.http_status == 0
    assert "connection failed" in outcome.error


async def test_post_tls_is_verified(tmp_path):
    certificate = ensure_certificate(tmp_path, "localhost")
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(certificate.chain_path, certificate.key_path)
    knowing = ssl.create_default_context(cafile=str(certificate.chain_path))
    async with webhook_receiver(serving) as receiver:
        url = f"https://localhost:{receiver.port}/"
        refused = await send(url)
        assert "certificate refused" in refused.error
        assert receiver.posts == []
        assert (await send(url, context=knowing)).delivered


async def test_post_cancelled_leaves_no_connection():
    async with webhook_receiver() as receiver:
        receiver.hangs = True
        task = asyncio.create_task(send(receiver.url))
        await eventually(lambda: receiver.posts)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await eventually(lambda: not receiver.open)
