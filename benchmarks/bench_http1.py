"""Nanoseconds per head: finding its end, parsing it, writing it again.

    python benchmarks/bench_http1.py [--json]

A proxied request costs two hops of (request head + response head). Medians of repeated loops on one core.
"""

from __future__ import annotations

import argparse
import json
import statistics

from spokes._fastpath.hooks.http1_hooks import time_request, time_response

ROUNDS = 11
HEADS_PER_ROUND = 100_000

REQUESTS = {
    "wrk request": b"GET / HTTP/1.1\r\nHost: fair-otter-123.example.com\r\n\r\n",
    "browser request": (
        b"GET /assets/app.4f1c9d.js?v=3 HTTP/1.1\r\n"
        b"Host: fair-otter-123.example.com\r\n"
        b"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n"
        b"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n"
        b"Accept-Language: en-US,en;q=0.5\r\n"
        b"Accept-Encoding: gzip, deflate, br, zstd\r\n"
        b"Connection: keep-alive\r\n"
        b"Cookie: session=0123456789abcdef0123456789abcdef; theme=dark; consent=1\r\n"
        b"Sec-Fetch-Dest: document\r\n"
        b"Sec-Fetch-Mode: navigate\r\n"
        b"Sec-Fetch-Site: none\r\n"
        b'If-None-Match: "0123456789abcdef"\r\n'
        b"\r\n"
    ),
}
RESPONSES = {
    "small response": (
        b"HTTP/1.1 200 OK\r\n"
        b"Server: nginx\r\n"
        b"Date: Sat, 01 Aug 2026 12:00:00 GMT\r\n"
        b"Content-Type: text/plain\r\n"
        b"Content-Length: 128\r\n"
        b"Connection: keep-alive\r\n"
        b"\r\n"
    ),
}


def measure() -> dict[str, dict[str, float]]:
    results: dict[str, dict[str, float]] = {}
    for name, head in [*REQUESTS.items(), *RESPONSES.items()]:
        rounds = [
            time_request(head, b"192.0.2.1", HEADS_PER_ROUND)
            if name in REQUESTS
            else time_response(head, HEADS_PER_ROUND)
            for _ in range(ROUNDS)
        ]
        find_ns, parse_ns, write_ns = (statistics.median(column) for column in zip(*rounds, strict=True))
        results[name] = {"head_bytes": len(head), "find_ns": find_ns, "parse_ns": parse_ns, "write_ns": write_ns}
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    options = parser.parse_args()
    results = measure()
    if options.json:
        print(json.dumps(results))
        return
    print("| head | bytes | find ns | parse ns | write ns |")
    print("|---|---|---|---|---|")
    for name, row in results.items():
        print(
            f"| {name} | {row['head_bytes']} | {row['find_ns']:.0f} | {row['parse_ns']:.0f} | {row['write_ns']:.0f} |"
        )


if __name__ == "__main__":
    main()
