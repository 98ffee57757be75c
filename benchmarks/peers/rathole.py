"""rathole, a TCP tunnel in Rust with two hops: plain, and with its documented self-signed TLS."""

from __future__ import annotations

import datetime
import secrets
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import NameOID

from benchmarks.machine import REPOSITORY
from benchmarks.peers.running import Endpoint, RunningPeer
from benchmarks.processes import Room, find_program, free_port
from benchmarks.upstream import Upstream

INSTALLED_PATH = str(REPOSITORY / ".bench/rathole/bin/rathole")     # see install-peers.sh
_TLS_NAME = "localhost"


def start_plain(room: Room, upstream: Upstream) -> RunningPeer:
    return _start(room, upstream, tls=False)


def start_tls(room: Room, upstream: Upstream) -> RunningPeer:
    return _start(room, upstream, tls=True)


def _start(room: Room, upstream: Upstream, *, tls: bool) -> RunningPeer:
    program = find_program("rathole", INSTALLED_PATH)
    name = "rathole-tls" if tls else "rathole"
    link_port, token = free_port(), secrets.token_hex(16)
    services = {"tcp": (free_port(), upstream.http_port)}
    if upstream.bulk_port:
        services["bulk"] = (free_port(), upstream.bulk_port)
    server_text = f'[server]\nbind_addr = "127.0.0.1:{link_port}"\ndefault_token = "{token}"\n'
    client_text = f'[client]\nremote_addr = "127.0.0.1:{link_port}"\ndefault_token = "{token}"\n'
    if tls:
        password = secrets.token_hex(8)
        identity, root = _make_identity(room.path, password)
        server_text += (
            f'[server.transport]\ntype = "tls"\n[server.transport.tls]\npkcs12 = "{identity}"\n'
            f'pkcs12_password = "{password}"\n'
        )
        client_text += (
            f'[client.transport]\ntype = "tls"\n[client.transport.tls]\ntrusted_root = "{root}"\n'
            f'hostname = "{_TLS_NAME}"\n'
        )
    for service, (port, upstream_port) in services.items():
        server_text += f'[server.services.{service}]\nbind_addr = "{room.address}:{port}"\n'
        client_text += f'[client.services.{service}]\nlocal_addr = "127.0.0.1:{upstream_port}"\n'
    server_config, client_config = room.path / f"{name}-server.toml", room.path / f"{name}-client.toml"
    server_config.write_text(server_text)
    client_config.write_text(client_text)
    quiet = {"RUST_LOG": "error"}
    server = room.start(f"{name}-server", [program, "--server", str(server_config)], env=quiet)
    server.wait_for_port("127.0.0.1", link_port)
    client = room.start(f"{name}-client", [program, "--client", str(client_config)], env=quiet)
    for port, _ in services.values():     # it listens for visitors once its client has come
        client.wait_for_port(room.address, port)
    endpoints = {service: Endpoint(room.address, port) for service, (port, _) in services.items()}
    endpoints["http"] = endpoints["tcp"]  # it knows no HTTP: the same bytes through a port
    return RunningPeer(
        name=name, endpoints=endpoints, processes={"server": server, "client": client},
        fds_per_conn=2,                   # the visitor's conn, and one to the other side for it alone
    )


def _make_identity(folder: Path, password: str) -> tuple[Path, Path]:
    """A root, and a server identity under it in the PKCS#12 form that rathole reads."""
    now = datetime.datetime.now(datetime.UTC)
    root_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    root_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "benchmark root")])
    lifetime = (now - datetime.timedelta(hours=1), now + datetime.timedelta(days=2))
    root = (
        x509.CertificateBuilder().subject_name(root_name).issuer_name(root_name).public_key(root_key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(lifetime[0]).not_valid_after(lifetime[1])
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(root_key, hashes.SHA256())
    )
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    leaf = (
        x509.CertificateBuilder().subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _TLS_NAME)]))
        .issuer_name(root_name).public_key(key.public_key()).serial_number(x509.random_serial_number())
        .not_valid_before(lifetime[0]).not_valid_after(lifetime[1])
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(_TLS_NAME)]), critical=False)
        .sign(root_key, hashes.SHA256())
    )
    identity_path, root_path = folder / "identity.pfx", folder / "root.crt"
    identity_path.write_bytes(pkcs12.serialize_key_and_certificates(
        b"benchmark", key, leaf, [root], serialization.BestAvailableEncryption(password.encode()),
    ))
    root_path.write_bytes(root.public_bytes(serialization.Encoding.PEM))
    return identity_path, root_path
