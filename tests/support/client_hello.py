"""ClientHellos: real ones from Python's ssl, and the pieces to build others by hand."""

from __future__ import annotations

import ssl
import struct


def real_hello(name: str | None, alpn: list[str] | None = None, *, version: ssl.TLSVersion | None = None) -> bytes:
    """The first flight of OpenSSL for this server name and these protocols."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if version is not None:
        context.maximum_version = version
    if alpn is not None:
        context.set_alpn_protocols(alpn)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    conn = context.wrap_bio(incoming, outgoing, server_hostname=name)
    try:
        conn.do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()
    raise AssertionError("a handshake cannot end without the other side")


def vector(data: bytes, length_bytes: int) -> bytes:
    return len(data).to_bytes(length_bytes, "big") + data


def extension(extension_type: int, data: bytes) -> bytes:
    return struct.pack(">HH", extension_type, len(data)) + data


def server_name(*names: bytes, name_type: int = 0) -> bytes:
    return extension(0, vector(b"".join(bytes([name_type]) + vector(name, 2) for name in names), 2))


def alpn(*protocols: bytes) -> bytes:
    return extension(16, vector(b"".join(vector(protocol, 1) for protocol in protocols), 2))


def versions(*numbers: int) -> bytes:
    return extension(43, vector(b"".join(struct.pack(">H", number) for number in numbers), 1))


def message(
    extensions: bytes | None = b"",
    *,
    version: bytes = b"\x03\x03",
    session_id: bytes = bytes(32),
    ciphers: bytes = b"\x13\x01",
    compressions: bytes = b"\x00",
    tail: bytes = b"",
) -> bytes:
    """A ClientHello with its handshake header, without records."""
    body = version + bytes(range(32)) + vector(session_id, 1) + vector(ciphers, 2) + vector(compressions, 1)
    if extensions is not None:
        body += vector(extensions, 2)
    return b"\x01" + vector(body + tail, 3)


def records(handshake: bytes, *sizes: int) -> bytes:
    """The handshake bytes in records of these sizes; the last record takes the rest."""
    parts, at = [], 0
    for size in sizes:
        parts.append(handshake[at : at + size])
        at += size
    parts.append(handshake[at:])
    return b"".join(b"\x16\x03\x01" + vector(part, 2) for part in parts if part)
