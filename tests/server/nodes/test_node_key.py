"""Node keys: made once, shown by a signature that is good for one nonce and one pair of nodes."""

from pathlib import Path

import pytest

from spokes.errors import CertificateError
from spokes.server.nodes.node_key import FILE_NAME, is_signed, load_node_key

A, B = "a" * 32, "b" * 32


def test_key_is_made_once_and_is_the_owners_alone(tmp_path: Path) -> None:
    key = load_node_key(tmp_path)
    assert load_node_key(tmp_path).public == key.public
    assert (tmp_path / FILE_NAME).stat().st_mode & 0o777 == 0o600


def test_signature_is_good_for_its_nonce_and_its_two_nodes_alone(tmp_path: Path) -> None:
    key = load_node_key(tmp_path)
    signature = key.sign("n1", A, B)
    assert is_signed(key.public, signature, "n1", A, B)
    for nonce, dialler, acceptor in (("n2", A, B), ("n1", B, A), ("n1", A, A)):
        assert not is_signed(key.public, signature, nonce, dialler, acceptor)


def test_signature_by_another_key_or_none_is_no_signature(tmp_path: Path) -> None:
    key = load_node_key(tmp_path)
    (tmp_path / "other").mkdir()
    other = load_node_key(tmp_path / "other")
    signature = other.sign("n1", A, B)
    for public, given in (
        (key.public, signature), (key.public, ""), (key.public, "!"), (key.public, "QUJD"), ("", signature),
        ("not base64", signature), ("QUJD", signature), ("\u00e9", signature),
    ):
        assert not is_signed(public, given, "n1", A, B)


@pytest.mark.parametrize("content", [b"", b"no key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_file_that_holds_no_key_is_told_and_left(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    with pytest.raises(CertificateError, match=FILE_NAME):
        load_node_key(tmp_path)
    assert (tmp_path / FILE_NAME).read_bytes() == content
