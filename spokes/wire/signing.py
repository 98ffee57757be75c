"""Signatures of webhooks: the headers by which a receiver knows that a body came from here.

Source: Standard Webhooks 1.0.0, "Verifying webhook authenticity" (webhook-id, -timestamp, -signature); the contract of
the Admin API, section 8 (X-Spokes-Signature, X-Spokes-Delivery).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

KEY_PREFIX = "whsec_"  # a secret of that form is base64 behind it; any other is taken as it is typed


def signed_headers(secret: str, delivery_uid: str, timestamp: int, body: bytes) -> list[tuple[str, str]]:
    """All headers that identify a delivery; without a secret those that need none."""
    headers = [("webhook-id", delivery_uid), ("webhook-timestamp", str(timestamp)), ("X-Spokes-Delivery", delivery_uid)]
    if secret:
        text = f"{delivery_uid}.{timestamp}.".encode() + body
        signature = base64.b64encode(hmac.digest(signing_key(secret), text, hashlib.sha256)).decode()
        headers.append(("webhook-signature", f"v1,{signature}"))
        headers.append(("X-Spokes-Signature", "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()))
    return headers


def signing_key(secret: str) -> bytes:
    if secret.startswith(KEY_PREFIX):
        try:
            return base64.b64decode(secret.removeprefix(KEY_PREFIX), validate=True)
        except binascii.Error:
            return secret.encode()
    return secret.encode()
