"""The light client against a server end that speaks docs/protocol.md from a script."""

from __future__ import annotations

import asyncio
import datetime
import json
import ssl
from collections.abc import AsyncIterator, Callable

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from benchmarks.loads.light_client import (
    CONTROL,
    HEADER,
    MORE_PARTS,
    PING,
    PONG,
    ByeError,
    LightClient,
    LightClientError,
)

Frame = tuple[int, int, bytes]
UNKNOWN_TYPE = 200


class ScriptedServer:
    """Answers each control message by `answers[type]`, a list of frames to send; keeps what it heard."""

    def __init__(self) -> None:
        self.answers: dict[str, Callable[[], list[Frame]]] = {}
        self.heard: list[dict[str, object]] = []
        self.pongs: asyncio.Queue[bytes] = asyncio.Queue()
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                length, kind, _, _ = HEADER.unpack(await reader.readexactly(HEADER.size))
                payload = await reader.readexactly(length)
                if kind == PONG:
                    self.pongs.put_nowait(payload)
                    continue
                message = json.loads(payload)
                self.heard.append(message)
                for answer_kind, flags, body in self.answers.get(message["type"], list)():
                    for byte in HEADER.pack(len(body), answer_kind, flags, 0) + body:     # split wherever it can be
                        writer.write(bytes([byte]))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def control(**message: object) -> Frame:
    return CONTROL, 0, json.dumps(message).encode()


@pytest.fixture
async def server(tmp_path) -> AsyncIterator[ScriptedServer]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
        .not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1)).sign(key, hashes.SHA256())
    )
    pem = tmp_path / "server.pem"
    pem.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    context.set_alpn_protocols(["spokes/1"])
    scripted = ScriptedServer()
    listening = await asyncio.start_server(scripted.serve, "127.0.0.1", 0, ssl=context)
    scripted.port = listening.sockets[0].getsockname()[1]
    yield scripted
    listening.close()


def client_of(server: ScriptedServer) -> LightClient:
    return LightClient("127.0.0.1", server.port, "localhost")


async def test_register_key_in_two_parts_is_put_together(server):
    _, _, whole = control(type="registered", tunnel="0" * 32, hostname="a.localhost", key="secret")
    server.answers["register"] = lambda: [(CONTROL, MORE_PARTS, whole[:9]), (CONTROL, 0, whole[9:])]
    assert await client_of(server).register("token", "name") == "secret"
    assert [message["type"] for message in server.heard] == ["hello", "register"]
    assert server.heard[1]["token"] == "token"


async def test_log_in_answers_ping_with_the_same_bytes_and_skips_unknown_frames(server):
    server.answers["login"] = lambda: [
        (UNKNOWN_TYPE, 0, b"from another version"), control(type="ready"), (PING, 0, b"12345678"),
    ]
    link = await client_of(server).log_in("key")
    assert await asyncio.wait_for(server.pongs.get(), 5) == b"12345678"
    link.close()


async def test_log_in_refused_for_now_comes_back_when_told(server):
    refusals = iter([True, False])
    server.answers["login"] = lambda: [
        control(type="bye", code="SPK-BUSY", reason="later", retry=True, retry_after_s=0.01)
        if next(refusals) else control(type="ready")
    ]
    link = await client_of(server).log_in("key")
    assert [message["type"] for message in server.heard] == ["hello", "login"] * 2
    link.close()


async def test_log_in_refused_for_good_says_why(server):
    server.answers["login"] = lambda: [control(type="bye", code="SPK-TOKEN", reason="unknown key", retry=False)]
    with pytest.raises(ByeError, match="SPK-TOKEN: unknown key"):
        await client_of(server).log_in("key")


async def test_log_in_link_that_ends_is_an_error(server):
    server.answers["login"] = lambda: [(CONTROL, 0, b"{")]
    with pytest.raises(LightClientError):
        await client_of(server).log_in("key")
