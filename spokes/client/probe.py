"""Which key a server shows: one TLS handshake without any data, for the message that explains a refused server."""

from __future__ import annotations

import asyncio
import contextlib
import ssl

from cryptography import x509

from spokes.fingerprints import fingerprint
from spokes.resolver import Resolver

PROBE_TIMEOUT_S = 5.0
LINK_ALPN = "spokes/1"


async def shown_fingerprint(host: str, port: int, resolver: Resolver) -> str:
    """The fingerprint of the server's key; "" when it cannot be had. Proves nothing: it is for people to compare."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols([LINK_ALPN])
    with contextlib.suppress(OSError, ValueError):  # the time-out included
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            for address in (await resolver.addresses(host)).addresses:
                with contextlib.suppress(OSError):
                    return await _fingerprint(address, port, host, context)
    return ""


async def _fingerprint(address: str, port: int, name: str, context: ssl.SSLContext) -> str:
    _, writer = await asyncio.open_connection(address, port, ssl=context, server_hostname=name)
    try:
        shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True) or b""
    finally:
        writer.transport.abort()
    return fingerprint(x509.load_der_x509_certificate(shown))
