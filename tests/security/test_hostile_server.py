"""A hostile server: what it can reach through a client that trusts its key."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.support.engines import CHAIN_PEM
from tests.support.frames import FrameType, Service, accept_peer, frame, listening_peer, open_frame
from tests.support.processes import Process

pytestmark = pytest.mark.e2e

HOSTNAME = "mine.example"
NO_SERVICE = 2


def test_server_reaches_nothing_but_what_the_rules_name(recorder, tmp_path: Path):
    with listening_peer() as listener:
        process = Process(
            tmp_path / "log", "spoke", "start", "--api-port", 0,
            "--config", _write_config(tmp_path, listener.getsockname()[1], recorder.port),
        )  # fmt: skip
        try:
            peer = accept_peer(listener)
            while b'"login"' not in peer.read(FrameType.CONTROL).payload:
                continue
            for message in (
                {"type": "welcome", "version": 1, "server": {}, "time": int(time.time())},
                {"type": "ready", "tunnel": "0" * 32, "hostname": HOSTNAME, "name": "", "generation": 1, "session": "",
                 "config": {}, "link_count_max": 1},
            ):  # fmt: skip
                peer.send(frame(FrameType.CONTROL, 0, json.dumps(message).encode()))
            while b'"services"' not in peer.read(FrameType.CONTROL).payload:
                continue
            for stream, service in ((2, Service.TCP), (4, Service.TLS), (6, Service.UDP)):
                peer.send(open_frame(stream, service, recorder.port, name=b"other.example"))
                reset = peer.read(FrameType.RESET)
                assert (reset.stream, int.from_bytes(reset.payload, "big")) == (stream, NO_SERVICE)
            request = b"GET / HTTP/1.1\r\nHost: other.example\r\n\r\n"
            peer.send(open_frame(8, Service.HTTP), frame(FrameType.DATA, 8, request))
            assert peer.read(FrameType.DATA).payload.startswith(b"HTTP/1.1 404 ")
            assert recorder.received == b""
            peer.send(open_frame(8))  # an id twice: the server hears why it is left
            assert json.loads(peer.until_end()[-1].payload)["code"] == "SPK-PROTOCOL"
        finally:
            process.end()


def _write_config(directory: Path, server_port: int, upstream_port: int) -> Path:
    key = x509.load_pem_x509_certificate(CHAIN_PEM).public_key()
    pin = hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()
    path = directory / "client.json"
    path.touch(0o600)
    path.write_text(json.dumps({
        "serverHost": f"127.0.0.1:{server_port}", "serverKey": f"sha256:{pin}", "hostname": HOSTNAME, "name": "",
        "tunnel": "0" * 32, "key": "1" * 64, "ports": [],
        "https": [{"domain": HOSTNAME, "destination": "127.0.0.1", "port": upstream_port}],
    }))  # fmt: skip
    return path
