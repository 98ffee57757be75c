"""A folder with a certificate and its key, whatever its files are called: found by content, checked, put in order.

Owns: nothing; it reads. Bound: FILE_COUNT_MAX files a folder, FILE_BYTES_MAX each, CHAIN_COUNT_MAX certificates shown.
Fails: CertificateError with what is wrong and what to do; also for what could be a trap: a link out of the tree, a
FIFO, a key that others may read.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509 import ocsp

from spokes.errors import CertificateError
from spokes.server.certificates import FILE_BYTES_MAX, PrivateKey, load_key, names_in

FILE_COUNT_MAX = 32
CHAIN_COUNT_MAX = 10
NAME_COUNT_MAX = 1000
RSA_BITS_MIN = 2048

_BLOCK = re.compile(
    rb"-----BEGIN ([A-Z0-9 ]{1,40})-----\s.{0,262144}?-----END \1-----", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Pair:
    """A chain and its key that can be used, with what is known of it."""

    names: tuple[str, ...]
    expires_at: float  # Unix seconds
    chain_pem: bytes
    key_pem: bytes = field(repr=False)
    staple: bytes  # an OCSP response in DER; b"" = there is none

    def digest(self) -> bytes:
        """The same for the same content."""
        parts = (self.chain_pem, self.key_pem, self.staple)
        return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).digest()


@dataclass(slots=True)
class _Found:
    """What lies in a folder."""

    certificates: list[tuple[Path, x509.Certificate]] = field(default_factory=list)
    keys: list[tuple[Path, PrivateKey]] = field(default_factory=list)
    responses: list[tuple[ocsp.OCSPResponse, bytes]] = field(default_factory=list)


def read_pair(folder: Path, root: Path, now: dt.datetime) -> Pair:
    """The pair in `folder`, which lies below `root`. Of several the one that lives longest."""
    found = _Found()
    for path, data in _files(folder, root):
        _sort(found, path, data)
    if not found.certificates:
        raise CertificateError(f"{folder} holds no certificate", hint="put the chain (PEM) there")
    if not found.keys:
        raise CertificateError(f"{folder} holds no private key", hint="put the certificate's key (PEM) there")
    pairs = [
        (leaf, key)
        for _, leaf in found.certificates
        for _, key in found.keys
        if leaf.public_key() == key.public_key()
    ]
    if not pairs:
        raise CertificateError(
            f"no key in {folder} belongs to a certificate there", hint="put the two together that were made together"
        )
    leaf, key = max(pairs, key=lambda pair: pair[0].not_valid_after_utc)
    _check(folder, leaf, key, now)
    chain = _chain(leaf, (certificate for _, certificate in found.certificates))
    return Pair(
        names=names_in(leaf),
        expires_at=leaf.not_valid_after_utc.timestamp(),
        chain_pem=b"".join(certificate.public_bytes(Encoding.PEM) for certificate in chain),
        key_pem=_key_pem(key),
        staple=_staple(leaf, found.responses, now),
    )


def signature(folder: Path) -> tuple[tuple[str, int, int, int, int], ...]:
    """What tells a folder from itself before a change, without reading a file; follows links."""
    lines = []
    with os.scandir(folder) as entries:
        for number, entry in enumerate(entries):
            if number > FILE_COUNT_MAX:
                break
            try:
                status = entry.stat()
            except OSError:
                status = entry.stat(follow_symlinks=False)
            lines.append((entry.name, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
    return tuple(sorted(lines))


def _files(folder: Path, root: Path) -> Iterator[tuple[Path, bytes]]:
    """Rights and kind are those of the file that was opened."""
    with os.scandir(folder) as entries:
        found = sorted((entry.name, entry) for number, entry in enumerate(entries) if number <= FILE_COUNT_MAX)
    if len(found) > FILE_COUNT_MAX:
        raise CertificateError(f"{folder} holds more than {FILE_COUNT_MAX} files", hint="leave the pair alone there")
    if folder.is_symlink():
        _beneath(folder, root)
    for name, entry in found:
        if name.startswith("."):
            continue
        path = folder / name
        real = _beneath(path, root) if entry.is_symlink() else str(path)
        try:
            fd = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise CertificateError(f"{path} cannot be read: {error.strerror}") from error
        with os.fdopen(fd, "rb") as file:
            status = os.fstat(fd)
            if stat.S_ISDIR(status.st_mode):
                continue
            if not stat.S_ISREG(status.st_mode):
                raise CertificateError(f"{path} is no regular file", hint="remove it")
            data = file.read(FILE_BYTES_MAX + 1)
        if len(data) > FILE_BYTES_MAX:
            raise CertificateError(f"{path} is larger than {FILE_BYTES_MAX} bytes", hint="remove it")
        if b"PRIVATE KEY-----" in data and status.st_mode & 0o007:
            raise CertificateError(f"{path} can be read by everybody on this machine", hint=f"chmod 600 {path}")
        yield path, data


def _beneath(path: Path, root: Path) -> str:
    """Where a link leads, which has to be below `root`."""
    real, top = os.path.realpath(path), os.path.realpath(root)
    if os.path.commonpath((real, top)) != top:
        raise CertificateError(f"{path} leads out of {root}", hint="copy the file there")
    return real


def _sort(found: _Found, path: Path, data: bytes) -> None:
    for block in _BLOCK.finditer(data):
        if block[1] in (b"CERTIFICATE", b"X509 CERTIFICATE", b"TRUSTED CERTIFICATE"):
            try:
                found.certificates.append((path, x509.load_pem_x509_certificate(block[0])))
            except (ValueError, UnsupportedAlgorithm):
                raise CertificateError(
                    f"{path} holds a certificate that cannot be read", hint="was it written whole?"
                ) from None
        elif block[1].endswith(b"PRIVATE KEY"):
            found.keys.append((path, load_key(path, block[0])))
    if b"-----BEGIN" in data and not _BLOCK.search(data):
        raise CertificateError(f"{path} is cut off", hint="was it written whole?")
    if not data.startswith(b"-----") and data[:1] == b"\x30":
        try:
            found.responses.append((ocsp.load_der_ocsp_response(data), data))
        except ValueError:
            return


def _check(folder: Path, leaf: x509.Certificate, key: PrivateKey, now: dt.datetime) -> None:
    names = names_in(leaf)
    if not names:
        raise CertificateError(
            f"the certificate in {folder} names no host", hint="have one made with subject alternative names"
        )
    if len(names) > NAME_COUNT_MAX:
        raise CertificateError(f"the certificate in {folder} has more than {NAME_COUNT_MAX} names")
    if leaf.not_valid_after_utc <= now:
        ended = f"{leaf.not_valid_after_utc:%Y-%m-%d}"
        raise CertificateError(f"the certificate in {folder} ended on {ended}", hint="put a new pair there")
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size < RSA_BITS_MIN:
        raise CertificateError(
            f"the key in {folder} has {key.key_size} bits", hint=f"browsers want {RSA_BITS_MIN} and more of RSA"
        )


def _chain(leaf: x509.Certificate, others: Iterable[x509.Certificate]) -> list[x509.Certificate]:
    """The leaf, then each one's issuer as far as they are here; an authority's own certificate is not sent."""
    chain, left = [leaf], [one for one in dict.fromkeys(others) if one != leaf]
    while len(chain) < CHAIN_COUNT_MAX and chain[-1].issuer != chain[-1].subject:
        issuer = next((one for one in left if one.subject == chain[-1].issuer), None)
        if issuer is None or issuer.issuer == issuer.subject:
            break
        chain.append(issuer)
        left.remove(issuer)
    return chain


def _key_pem(key: PrivateKey) -> bytes:
    """In the form that is parsed fastest."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())


def _staple(leaf: x509.Certificate, responses: list[tuple[ocsp.OCSPResponse, bytes]], now: dt.datetime) -> bytes:
    """The response for this certificate that holds longest; one that has run out helps nobody."""
    best, until = b"", now
    for response, data in responses:
        if response.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
            continue
        ends = response.next_update_utc
        if response.serial_number == leaf.serial_number and ends is not None and ends > until:
            best, until = data, ends
    return best
