"""Our HTTP client against peers that behave, and peers that do not. (Webhooks have more: test_webhook_request.py.)"""

import asyncio
import contextlib
import socket
import ssl
import threading

import pytest

from spokes.http_client import NotHttpError, Peer, Request, ask, exchange
from spokes.server.certificates.certificates import ensure_certificate
from tests.support.eventually import eventually
from tests.support.threads import join_thread
from tests.support.webhook_receiver import webhook_receiver

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
GET = Request(method="GET", target="/hook?a=b", host="name.example:81")


def peer(port: int, *addresses: str) -> Peer:
    return Peer(addresses=addresses or ["127.0.0.1"], port=port)


async def test_exchange_dials_the_address_and_names_the_host():
    async with webhook_receiver() as receiver:
        receiver.answer = OK
        async with exchange(peer(receiver.port), GET) as answer:
            assert (answer.status, await answer.read(100)) == (200, b"hi")
        (got,) = receiver.posts
    assert got.head == "GET /hook?a=b HTTP/1.1"
    assert got.headers == {"host": "name.example:81", "connection": "close"}


async def test_exchange_never_asks_for_a_name(monkeypatch):
    """Only what is given is dialled: the Host field is nobody's to resolve."""
    asked: list[str] = []
    loop = asyncio.get_running_loop()
    real = loop.getaddrinfo

    async def noted(host, *args, **more):
        asked.append(host)
        return await real(host, *args, **more)

    monkeypatch.setattr(loop, "getaddrinfo", noted)
    async with webhook_receiver() as receiver, exchange(peer(receiver.port), GET) as answer:
        assert answer.status == 200
    assert set(asked) <= {"127.0.0.1"}


async def test_exchange_unreachable_address_is_left_for_the_next():
    async with webhook_receiver() as receiver, exchange(peer(receiver.port, "127.0.0.2", "127.0.0.1"), GET) as answer:
        assert answer.status == 200


async def test_exchange_name_is_in_tls_and_checked(tmp_path):
    certificate = ensure_certificate(tmp_path, "name.example")
    seen: list[str | None] = []
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(certificate.chain_path, certificate.key_path)
    serving.sni_callback = lambda _conn, name, _context: seen.append(name)
    knowing = ssl.create_default_context(cafile=str(certificate.chain_path))
    async with webhook_receiver(serving) as receiver:

        def named(name: str) -> Peer:
            return Peer(addresses=["127.0.0.1"], port=receiver.port, tls=knowing, server_name=name)

        async with exchange(named("name.example"), GET) as answer:
            assert answer.status == 200
        with pytest.raises(ssl.SSLCertVerificationError):
            async with exchange(named("other.example"), GET):
                pass
    assert seen == ["name.example", "other.example"]


async def test_exchange_over_a_unix_socket(tmp_path):
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        writer.close()

    path = str(tmp_path / "api.sock")
    async with await asyncio.start_unix_server(serve, path):
        async with exchange(Peer(unix_path=path), GET) as answer:
            assert await answer.read(100) == b"hi"
        answered = await asyncio.to_thread(ask, "local", 80, GET, timeout_s=5, body_bytes_max=100, unix_path=path)
    assert answered == (200, b"hi")


async def test_read_body_longer_than_allowed_is_refused():
    async with webhook_receiver() as receiver:
        receiver.answer, receiver.endless = b"HTTP/1.1 200 OK\r\nContent-Length: 100000000000\r\n\r\n", True
        async with exchange(peer(receiver.port), GET) as answer:
            with pytest.raises(NotHttpError, match="longer than 1000000 bytes"):
                await answer.read(1_000_000)
        await eventually(lambda: not receiver.open)


async def test_read_whole_body_is_not_held_to_the_head_s_limit():
    async with webhook_receiver() as receiver:
        receiver.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n" + b"x" * 300_000
        async with exchange(peer(receiver.port), GET) as answer:
            assert await answer.read(300_000) == b"x" * 300_000


async def test_wait_closed_returns_when_the_peer_goes():
    closing: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        closing.append(writer)

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with exchange(peer(port), GET) as answer:
            await answer.read(100)
            waiting = asyncio.create_task(answer.wait_closed())
            await asyncio.sleep(0)
            assert not waiting.done()
            closing[0].close()
            await waiting


@contextlib.contextmanager
def served(answer: bytes, *, hangs: bool = False):
    """The port of a peer that sends these bytes to whoever comes, in a thread."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            conn, _ = listening.accept()
            with conn:
                conn.recv(65536)
                conn.sendall(answer)
                if hangs:
                    conn.recv(65536)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
    join_thread(thread)


def test_ask_brings_status_and_body():
    with served(b"HTTP/1.1 404 No\r\nContent-Length: 3\r\n\r\nnil") as port:
        assert ask("127.0.0.1", port, GET, timeout_s=5, body_bytes_max=3) == (404, b"nil")


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 ", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"]
)
def test_ask_something_else_is_not_http(answer):
    with served(answer) as port, pytest.raises(NotHttpError):
        ask("127.0.0.1", port, GET, timeout_s=5, body_bytes_max=100)


def test_ask_long_body_is_refused():
    with served(OK) as port, pytest.raises(NotHttpError, match="longer than 1 bytes"):
        ask("127.0.0.1", port, GET, timeout_s=5, body_bytes_max=1)


def test_ask_silent_peer_times_out():
    with served(b"", hangs=True) as port, pytest.raises(TimeoutError):
        ask("127.0.0.1", port, GET, timeout_s=0.1, body_bytes_max=1)


def test_ask_nobody_listens():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    with pytest.raises(ConnectionError, match="refused"):
        ask("127.0.0.1", port, GET, timeout_s=5, body_bytes_max=1)
