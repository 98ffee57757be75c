"""Which key a server shows: one TLS handshake without any data, for the message that explains a refused server."""

from __future__ import annotations

import socket
import ssl

from cryptography import x509

from spokes.client.resolve import literal_addresses
from spokes.pins import fingerprint

PROBE_TIMEOUT_S = 5.0
LINK_ALPN = "spokes/1"


def shown_fingerprint(host: str, port: int) -> str:
    """The fingerprint of the server's key; "" when it cannot be had. Proves nothing: it is for people to compare."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols([LINK_ALPN])
    for address in literal_addresses(host) or (host,):
        try:
            with (
                socket.create_connection((address, port), timeout=PROBE_TIMEOUT_S) as raw,
                context.wrap_socket(raw, server_hostname=host) as connection,
            ):
                certificate = connection.getpeercert(binary_form=True) or b""
            return fingerprint(x509.load_der_x509_certificate(certificate))
        except (OSError, ValueError):
            continue
    return ""
