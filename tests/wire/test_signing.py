"""Webhook signatures, against what a receiver computes."""

import base64
import hashlib
import hmac

import pytest

from spokes.wire.signing import signed_headers

UID = "3b1f0c5d7e9a42868fd0c1b2a3948576"
KEY = base64.b64encode(b"k" * 24).decode()


@pytest.mark.parametrize(
    ("secret", "key"),
    [("plain text", b"plain text"), (f"whsec_{KEY}", b"k" * 24), ("whsec_not base64!", b"whsec_not base64!")],
)
def test_signature_is_what_the_receiver_computes(secret, key):
    headers = dict(signed_headers(secret, UID, 1_800_000_000, b'{"a":1}'))
    expected = hmac.new(key, f"{UID}.1800000000.".encode() + b'{"a":1}', hashlib.sha256).digest()
    assert headers["webhook-id"] == headers["X-Spokes-Delivery"] == UID
    assert headers["webhook-timestamp"] == "1800000000"
    assert headers["webhook-signature"] == "v1," + base64.b64encode(expected).decode()
    assert headers["X-Spokes-Signature"] == (
        "sha256=" + hmac.new(secret.encode(), b'{"a":1}', hashlib.sha256).hexdigest()
    )


def test_signature_without_a_secret_is_left_out():
    assert {name for name, _ in signed_headers("", UID, 1, b"")} == {
        "webhook-id", "webhook-timestamp", "X-Spokes-Delivery"
    }  # fmt: skip


def test_signature_is_the_one_of_the_published_example():
    """Standard Webhooks, reference libraries' own test."""
    headers = dict(
        signed_headers(
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330,
            b'{"test": 2432232314}',
        )
    )  # fmt: skip
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
