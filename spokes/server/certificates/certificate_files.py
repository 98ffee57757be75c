"""A folder with a certificate and its key, whatever its files are called: found by content, checked, put in order.

Owns: nothing; it reads. Bound: FILE_COUNT_MAX files a folder, FILE_BYTES_MAX each, CHAIN_COUNT_MAX certificates shown.
Fails: CertificateError with what is wrong and what to do; also for what could be a trap: a link out of the tree, a
FIFO, a key that others may read.
"""

from __future__ import annotations

import binascii
import datetime as dt
import errno
import functools
import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509 import ocsp

from spokes.errors import CertificateError
from spokes.server.certificates.certificates import FILE_BYTES_MAX, PrivateKey, load_key, names_in

FILE_COUNT_MAX = 32
CHAIN_COUNT_MAX = 10
NAME_COUNT_MAX = 1000
RSA_BITS_MIN = 2048

AUTHORITY_COUNT_MAX = 64  # certificates remembered while folders are read: thousands come from one authority

_BEGIN, _END, _RULE = b"-----BEGIN ", b"-----END ", b"-----"


@dataclass(frozen=True, slots=True)
class Pair:
    """A chain and its key that can be used, with what is known of it."""

    names: tuple[str, ...]
    expires_at: float  # Unix seconds
    chain_pem: bytes
    key_pem: bytes = field(repr=False)
    staple: bytes  # an OCSP response in DER; b"" = there is none
    kind: tuple[object, ...]  # what a TLS library decides by whether it takes a pair: alike for those made alike

    def digest(self) -> bytes:
        """The same for the same content."""
        parts = (self.chain_pem, self.key_pem, self.staple)
        return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).digest()


@dataclass(frozen=True, slots=True, eq=False)
class _Certificate:
    """One that was read."""

    parsed: x509.Certificate
    public_key: object  # None: of a kind that is not known here
    pem: bytes


@dataclass(slots=True)
class _Found:
    """What lies in a folder."""

    certificates: list[_Certificate] = field(default_factory=list)
    keys: list[PrivateKey] = field(default_factory=list)
    responses: list[tuple[ocsp.OCSPResponse, bytes]] = field(default_factory=list)


def read_pair(folder: Path, root: Path, now: dt.datetime, names: Iterable[str] = ()) -> Pair:
    """The pair in `folder`, which lies below `root`. Of several the one that lives longest. `names`: what is in it,
    where that is known."""
    found = _Found()
    for path, data in _files(folder, root, sorted(names or (one.name for one in folder.iterdir()))):
        _sort(found, path, data)
    if not found.certificates:
        raise CertificateError(f"{folder} holds no certificate", hint="put the chain (PEM) there")
    if not found.keys:
        raise CertificateError(f"{folder} holds no private key", hint="put the certificate's key (PEM) there")
    public_keys = [(key.public_key(), key) for key in found.keys]
    pairs = [(leaf, key) for leaf in found.certificates for public, key in public_keys if leaf.public_key == public]
    if not pairs:
        raise CertificateError(
            f"no key in {folder} belongs to a certificate there", hint="put the two together that were made together"
        )
    leaf, key = max(pairs, key=lambda pair: pair[0].parsed.not_valid_after_utc)
    names = names_in(leaf.parsed)
    _check(folder, leaf.parsed, names, key, now)
    chain = _chain(leaf, found.certificates)
    return Pair(
        names=names,
        expires_at=leaf.parsed.not_valid_after_utc.timestamp(),
        chain_pem=b"".join(one.pem for one in chain),
        key_pem=_key_pem(key),
        staple=_staple(leaf.parsed, found.responses, now),
        kind=(
            key.curve.name if isinstance(key, ec.EllipticCurvePrivateKey) else key.key_size,
            leaf.parsed.signature_algorithm_oid.dotted_string,
            *(one.pem for one in chain[1:]),
        ),
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


def _files(folder: Path, root: Path, names: list[str]) -> Iterator[tuple[str, bytes]]:
    """Rights and kind are those of the file that was opened."""
    if len(names) > FILE_COUNT_MAX:
        raise CertificateError(f"{folder} holds more than {FILE_COUNT_MAX} files", hint="leave the pair alone there")
    if folder.is_symlink():
        _beneath(folder, root)
    for name in names:
        if name.startswith("."):
            continue
        path = f"{folder}/{name}"
        try:
            fd = _open(path, root)
        except OSError as error:
            raise CertificateError(f"{path} cannot be read: {error.strerror}") from error
        try:
            status = os.fstat(fd)
            if stat.S_ISDIR(status.st_mode):
                continue
            if not stat.S_ISREG(status.st_mode):
                raise CertificateError(f"{path} is no regular file", hint="remove it")
            if status.st_size > FILE_BYTES_MAX:
                raise CertificateError(f"{path} is larger than {FILE_BYTES_MAX} bytes", hint="remove it")
            data = os.read(fd, status.st_size)
        except OSError as error:
            raise CertificateError(f"{path} cannot be read: {error.strerror}") from error
        finally:
            os.close(fd)
        if b"PRIVATE KEY-----" in data and status.st_mode & 0o007:
            raise CertificateError(f"{path} can be read by everybody on this machine", hint=f"chmod 600 {path}")
        yield path, data


def _open(path: str, root: Path) -> int:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        return os.open(path, flags)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
    return os.open(_beneath(path, root), flags)  # a link


def _beneath(path: Path | str, root: Path) -> str:
    """Where a link leads, which has to be below `root`."""
    real, top = os.path.realpath(path), os.path.realpath(root)
    if os.path.commonpath((real, top)) != top:
        raise CertificateError(f"{path} leads out of {root}", hint="copy the file there")
    return real


def _sort(found: _Found, path: str, data: bytes) -> None:
    for label, block in _blocks(path, data):
        if label in (b"CERTIFICATE", b"X509 CERTIFICATE", b"TRUSTED CERTIFICATE"):
            try:
                found.certificates.append(_certificate(block))
            except (ValueError, UnsupportedAlgorithm):
                raise CertificateError(
                    f"{path} holds a certificate that cannot be read", hint="was it written whole?"
                ) from None
        elif label.endswith(b"PRIVATE KEY"):
            found.keys.append(load_key(path, block))
    if data[:1] == b"\x30":
        try:
            found.responses.append((ocsp.load_der_ocsp_response(data), data))
        except ValueError:
            return


def _blocks(path: str, data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(label, the block with its first and last line) of each; text around them is passed over."""
    at = data.find(_BEGIN)
    while at >= 0:
        label = data[at + len(_BEGIN) : max(data.find(_RULE, at + len(_BEGIN)), 0)]
        last_line = _END + label + _RULE
        end = data.find(last_line, at)
        if not label or end < 0:
            raise CertificateError(f"{path} is cut off", hint="was it written whole?")
        end += len(last_line)
        yield label, data[at:end] + b"\n"
        at = data.find(_BEGIN, end)


@functools.lru_cache(maxsize=AUTHORITY_COUNT_MAX)
def _certificate(block: bytes) -> _Certificate:
    der = binascii.a2b_base64(block[block.index(b"\n") : block.rindex(_END)])
    parsed = x509.load_der_x509_certificate(der)
    try:
        public_key = parsed.public_key()
    except (ValueError, UnsupportedAlgorithm):  # of an authority: it is for visitors to judge
        return _Certificate(parsed, None, block)
    return _Certificate(parsed, public_key, block)


def _check(
    folder: Path, leaf: x509.Certificate, names: tuple[str, ...], key: PrivateKey, now: dt.datetime
) -> None:
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


def _chain(leaf: _Certificate, found: list[_Certificate]) -> list[_Certificate]:
    """The leaf, then each one's issuer as far as they are here; an authority's own certificate is not sent."""
    chain, left = [leaf], list({one.pem: one for one in found if one.pem != leaf.pem}.values())
    while left and len(chain) < CHAIN_COUNT_MAX:
        wanted = chain[-1].parsed.issuer
        issuer = next((one for one in left if one.parsed.subject == wanted), None)
        if issuer is None or issuer.parsed.issuer == issuer.parsed.subject:
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
