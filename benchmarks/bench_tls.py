"""TLS alone, in memory, on one core: bytes an idle conn costs, and MB/s of records one way.

Method: memory is the growth of this process's resident set over COUNT handshakes, once with only the server ends kept
and once with only the client ends; speed is the median of RUNS runs. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import datetime as dt
import gc
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from spokes._fastpath.hooks.tls_hooks import TlsContext, TlsEnd, measure_one_way

NAME = "bench.example"


def make_links() -> TlsContext:
    key = ec.generate_private_key(ec.SECP256R1())
    now = dt.datetime.now(dt.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + dt.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    key_pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return TlsContext("links", chain_pem=certificate.public_bytes(serialization.Encoding.PEM), key_pem=key_pem)


def connect(client_context: TlsContext, links: TlsContext, name: str = NAME) -> tuple[TlsEnd, TlsEnd]:
    client = TlsEnd(client_context, server_name=name, has_pin=True, tx_size=8192)
    server = TlsEnd(links, tx_size=8192)
    client.handshake()
    server.feed(client.take())
    server.handshake()
    client.feed(server.take())
    client.handshake()
    server.feed(client.take())
    server.handshake()
    client.feed(server.take())
    client.read(16)  # the ticket
    client.write(b"ping")
    server.feed(client.take())
    server.read(16)
    server.write(b"pong")
    client.feed(server.take())
    client.read(16)
    return client, server


def resident_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no VmRSS")


def idle_bytes(side: int, count: int, *, resumes: bool) -> int:
    """Growth of the resident set for each end kept; run in a process of its own, so that no freed memory is reused."""
    links, client_context = make_links(), TlsContext("client")
    kept = []
    for i in range(100):
        connect(client_context, links, f"warm-{i}.{NAME}")
    gc.collect()
    before = resident_bytes()
    for i in range(count):
        pair = connect(client_context, links, NAME if resumes else f"{i}.{NAME}")
        pair[side].trim()
        kept.append(pair[side])
        del pair
    return (resident_bytes() - before) // count


def one_way_mb_s(write_bytes: int, total_bytes: int, runs: int) -> float:
    client, server = connect(TlsContext("client"), make_links())
    rates: list[float] = []
    for _ in range(runs):
        start = time.perf_counter()
        moved = measure_one_way(client, server, write_bytes, total_bytes)
        rates.append(moved / (time.perf_counter() - start) / 1e6)
    return round(statistics.median(rates), 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2000, help="conns for the memory figure")
    parser.add_argument("--total-mb", type=int, default=1000, help="megabytes for each speed run")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument(
        "--idle", choices=["server", "client", "server-resumed", "client-resumed"], help=argparse.SUPPRESS
    )
    args = parser.parse_args()
    if args.idle:
        print(idle_bytes(int(args.idle.startswith("server")), args.count, resumes=args.idle.endswith("resumed")))
        return
    result: dict[str, float] = {}
    for side in ("server", "client", "server-resumed", "client-resumed"):
        run = subprocess.run(
            [sys.executable, __file__, "--idle", side, "--count", str(args.count)], check=True, capture_output=True
        )
        result[f"idle_{side.replace('-', '_')}_bytes"] = int(run.stdout)
    for write_bytes in (16384, 65536):
        result[f"one_way_{write_bytes}_mb_s"] = one_way_mb_s(write_bytes, args.total_mb * 1_000_000, args.runs)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
