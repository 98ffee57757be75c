"""The server's own certificates: made on first start, kept, and issued again for the same key when the domain changes.

Owns: in the data directory `server.key` and `server.crt`, for visitors of the server's names, and `link.key` and
`link.crt`, for links. An operator may put a pair of an authority in the place of the first; it is used as it is and
never overwritten. The link's key is what clients pin: it stays, whatever pair is there for visitors.
Fails: CertificateError for files that cannot be used, DataDirError where the directory cannot be read or written.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import logging
import os
import re
import stat
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from spokes.errors import CertificateError, ConfigError, DataDirError
from spokes.fingerprints import fingerprint, fingerprint_of_key

KEY_NAME = "server.key"
CHAIN_NAME = "server.crt"
LINK_KEY_NAME = "link.key"
LINK_CHAIN_NAME = "link.crt"
LIFETIME = dt.timedelta(days=3652)  # ten years; clients pin the key, so nothing is gained by less
RENEW_BEFORE = dt.timedelta(days=30)
CLOCK_SKEW = dt.timedelta(days=1)  # a visitor's clock may be behind ours
FILE_BYTES_MAX = 256 * 1024
COMMON_NAME_LENGTH_MAX = 64  # X.520

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A usable pair: where it is, what is in it, and the fingerprint that clients pin."""

    chain_path: Path
    key_path: Path
    chain_pem: bytes
    key_pem: bytes = field(repr=False)  # must not reach a log by accident
    names: tuple[str, ...]
    fingerprint: str
    expires_at: float  # Unix seconds
    is_self_made: bool  # signed by its own key


def ensure_certificates(
    data_dir: Path, domain: str, *, now: dt.datetime | None = None
) -> tuple[Certificate, Certificate]:
    """What visitors are shown, and what links are; made or renewed where needed. A key, once there, never changes."""
    link_key_pem = _ensure_link_key(data_dir)
    visitors = ensure_certificate(data_dir, domain, first_key_pem=link_key_pem, now=now)
    return visitors, link_certificate(data_dir, domain, visitors, now=now)


def ensure_certificate(
    data_dir: Path, domain: str, *, first_key_pem: bytes = b"", now: dt.datetime | None = None
) -> Certificate:
    """The visitors' pair for this domain; `first_key_pem`: what its key is to be where there is none."""
    return _ensure_pair(data_dir / KEY_NAME, data_dir / CHAIN_NAME, domain, first_key_pem, now)


def link_certificate(
    data_dir: Path, domain: str, visitors: Certificate, *, now: dt.datetime | None = None
) -> Certificate:
    """The visitors' pair while its key is the link's: clients may know its authority. Else one of the link's own."""
    key_path = data_dir / LINK_KEY_NAME
    key_pem = _read(key_path, secret=True) or b""
    if fingerprint_of_key(load_key(key_path, key_pem)) == visitors.fingerprint:
        return visitors
    return _ensure_pair(key_path, data_dir / LINK_CHAIN_NAME, domain, b"", now)


def _ensure_link_key(data_dir: Path) -> bytes:
    """A server that has served before had one key for both: that stays the link's."""
    path = data_dir / LINK_KEY_NAME
    pem, _ = _read_pair(path, data_dir / LINK_CHAIN_NAME)
    if pem is None:
        pem, _ = _read_pair(data_dir / KEY_NAME, data_dir / CHAIN_NAME)
        pem = _make_key() if pem is None else pem
        load_key(data_dir / KEY_NAME, pem)  # what cannot be used is not copied
        _write(path, pem)
    return pem


def _ensure_pair(
    key_path: Path, chain_path: Path, domain: str, first_key_pem: bytes, now: dt.datetime | None
) -> Certificate:
    now = now or dt.datetime.now(dt.UTC)
    names = names_for(domain)
    key_pem, chain_pem = _read_pair(key_path, chain_path)
    if key_pem is None:
        key_pem = first_key_pem or _make_key()
        # The key first: if the second write does not happen, the next start issues the certificate for this key.
        _write(key_path, key_pem)
    key, certificate = _checked(key_path, key_pem, chain_path, chain_pem, names)
    if certificate is None or (
        _is_self_made(certificate)
        and (names_in(certificate) != names or certificate.not_valid_after_utc - now < RENEW_BEFORE)
    ):
        certificate = _issue(key, names, now)
        chain_pem = certificate.public_bytes(Encoding.PEM)
        _write(chain_path, chain_pem)
        log.info("certificate made", extra={"names": names, "fingerprint": fingerprint(certificate)})
    assert chain_pem is not None
    return _certificate(key_path, key_pem, chain_path, chain_pem, certificate)


def read_certificate(data_dir: Path, domain: str, *, now: dt.datetime | None = None) -> Certificate:
    """The pair as it lies there, for a server that runs: nothing is made, and one that has ended is refused."""
    now = now or dt.datetime.now(dt.UTC)
    key_path, chain_path = data_dir / KEY_NAME, data_dir / CHAIN_NAME
    key_pem, chain_pem = _read(key_path, secret=True), _read(chain_path)
    if key_pem is None or chain_pem is None:
        missing = key_path if key_pem is None else chain_path
        raise CertificateError(f"{missing} is not there", hint="put it back before the server starts again")
    key, certificate = load_key(key_path, key_pem), _load_certificate(chain_path, chain_pem)
    _check_pair(key_path, key, chain_path, certificate)
    _check_foreign(chain_path, certificate, names_for(domain))
    if certificate.not_valid_after_utc <= now:
        ended = f"{certificate.not_valid_after_utc:%Y-%m-%d}"
        raise CertificateError(f"the certificate in {chain_path} ended on {ended}", hint="put a new one there")
    return _certificate(key_path, key_pem, chain_path, chain_pem, certificate)


def check_certificates(data_dir: Path, domain: str) -> None:
    """Raise where ensure_certificates() would, without making what is missing."""
    names = names_for(domain)
    for key_path, chain_path in (
        (data_dir / KEY_NAME, data_dir / CHAIN_NAME), (data_dir / LINK_KEY_NAME, data_dir / LINK_CHAIN_NAME),
    ):
        key_pem, chain_pem = _read_pair(key_path, chain_path)
        if key_pem is not None:
            _checked(key_path, key_pem, chain_path, chain_pem, names)


def _read_pair(key_path: Path, chain_path: Path) -> tuple[bytes | None, bytes | None]:
    """The files of a key and its certificate; a certificate whose key is lost is refused."""
    key_pem, chain_pem = _read(key_path, secret=True), _read(chain_path)
    if key_pem is None and chain_pem is not None:
        raise _key_missing(key_path, chain_path)
    return key_pem, chain_pem


def _checked(
    key_path: Path, key_pem: bytes, chain_path: Path, chain_pem: bytes | None, names: tuple[str, ...]
) -> tuple[PrivateKey, x509.Certificate | None]:
    """What is in the files, if it can be used for these names."""
    key = load_key(key_path, key_pem)
    if chain_pem is None:
        return key, None
    certificate = _load_certificate(chain_path, chain_pem)
    _check_pair(key_path, key, chain_path, certificate)
    if not _is_self_made(certificate):
        _check_foreign(chain_path, certificate, names)
    return key, certificate


def _is_self_made(certificate: x509.Certificate) -> bool:
    return certificate.issuer == certificate.subject


def _key_missing(key_path: Path, chain_path: Path) -> CertificateError:
    return CertificateError(
        f"{chain_path} is there but its key {key_path} is not",
        hint="put the key back; or remove the certificate for a new pair, and clients must then pin its key",
    )


def names_for(domain: str) -> tuple[str, ...]:
    """What a certificate for this domain covers: it and every name below, or just the address when it is one."""
    domain = domain.lower().removesuffix(".")
    try:
        return (str(ipaddress.ip_address(domain)),)
    except ValueError:
        pass
    if len(domain) > 253 or not all(_LABEL.fullmatch(label) for label in domain.split(".")):
        raise ConfigError(f"{domain!r} is no domain name", hint="write it in ASCII, for example tunnels.example.com")
    return domain, f"*.{domain}"


def _make_key() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def load_key(path: Path | str, pem: bytes) -> PrivateKey:
    try:
        key = load_pem_private_key(pem, password=None)
    except TypeError:
        raise CertificateError(
            f"{path} is locked with a password", hint="store the key without one, mode 0600"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise CertificateError(f"{path} holds no private key", hint="put back the key from a backup") from None
    if not isinstance(key, PrivateKey):
        raise CertificateError(f"{path} holds a key of a kind not used here", hint="use an ECDSA or RSA key")
    return key


def _load_certificate(path: Path, pem: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificates(pem)[0]
    except ValueError:
        raise CertificateError(
            f"{path} holds no certificate", hint="remove it to have one made for the same key"
        ) from None


def names_in(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return ()
    return (*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress)))


def _certificate(
    key_path: Path, key_pem: bytes, chain_path: Path, chain_pem: bytes, certificate: x509.Certificate
) -> Certificate:
    return Certificate(
        chain_path=chain_path,
        key_path=key_path,
        chain_pem=chain_pem,
        key_pem=key_pem,
        names=names_in(certificate),
        fingerprint=fingerprint(certificate),
        expires_at=certificate.not_valid_after_utc.timestamp(),
        is_self_made=_is_self_made(certificate),
    )


def _check_pair(key_path: Path, key: PrivateKey, chain_path: Path, certificate: x509.Certificate) -> None:
    if certificate.public_key() != key.public_key():
        raise CertificateError(
            f"{key_path} is not the key of {chain_path}",
            hint="put back the pair that belongs together, or remove the certificate to have one made for this key",
        )


def _check_foreign(path: Path, certificate: x509.Certificate, names: tuple[str, ...]) -> None:
    covered = names_in(certificate)
    if names[0] not in covered:
        raise CertificateError(
            f"the certificate in {path} is not for {names[0]} but for {', '.join(covered) or 'no name'}",
            hint="put one for this domain there, or remove it to have one made for the same key",
        )


def _issue(key: PrivateKey, names: tuple[str, ...], now: dt.datetime) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:COMMON_NAME_LENGTH_MAX])])
    alternatives = [_alternative_name(name) for name in names]
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _alternative_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _read(path: Path, *, secret: bool = False) -> bytes | None:
    """The file's bytes, None when there is none. Rights and kind are those of the file opened, not of its name."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        if not path.parent.is_dir():
            raise DataDirError(
                f"data directory {path.parent} does not exist", hint="create it, or name another"
            ) from None
        return None
    except OSError as error:
        raise CertificateError(f"{path} cannot be read: {error.strerror}") from error
    with os.fdopen(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise CertificateError(f"{path} is no regular file")
        if secret and status.st_mode & 0o007:
            raise CertificateError(f"{path} can be read by everybody on this machine", hint=f"chmod 600 {path}")
        data = file.read(FILE_BYTES_MAX + 1)
    if len(data) > FILE_BYTES_MAX:
        raise CertificateError(f"{path} is larger than {FILE_BYTES_MAX} bytes")
    return data


def _write(path: Path, data: bytes) -> None:
    """All of it or nothing, readable by us alone, on disk before it is visible."""
    temporary = ""
    try:
        fd, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mode 0600
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(fd)
        Path(temporary).replace(path)
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        raise DataDirError(f"{path} cannot be written: {error.strerror}") from error
