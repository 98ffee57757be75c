"""docs/engine.md and the code say the same deadlines."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.fastpath.link.test_protocol_numbers import constant

PAGE = (Path(__file__).parents[3] / "docs" / "engine.md").read_text()

# The row's words: the numbers in it, in order, and what a unit is in the code's.
DEADLINES = {
    "ClientHello": [("HELLO_MS", 1000), ("HELLO_BYTES_MAX", 1024)],
    "TLS handshake": [("HANDSHAKE_MS", 1000)],
    "request head": [("HEAD_MS", 1000), ("HTTP_HEAD_BYTES_MAX", 1024)],
    "between requests": [("KEEP_ALIVE_MS", 1000)],
    "request body standing still": [("BODY_IDLE_MS", 1000)],
    "response not beginning, or standing still": [("RESPONSE_IDLE_MS", 1000)],
    "the same, once the visitor has half-closed": [
        ("HALF_CLOSED_ASK_MS", 1000), ("HALF_CLOSED_MS", 1000),
        ("HALF_CLOSED_MUTE_MS", 1000)
    ],
    "one silent address of an upstream that has more": [("ADDRESS_MS", 1000)],
    "dialling an upstream, all its addresses, waiting for a Unix socket's full backlog included": [
        ("CONNECT_MS", 1000)
    ],
    "idle upstream conn kept": [("IDLE_MS", 1000)],
    "a closing conn: nothing of what waits is taken": [
        ("LINGER_IDLE_MS", 1000), ("FINISH_IDLE_MS", 1000)
    ],
    "a closing conn: the peer's end, after ours": [
        ("LINGER_MS", 1000), ("LINGER_VISITOR_MS", 1000)
    ],
    "a closing conn: what is read of its peer and dropped": [
        ("LINGER_BYTES_MAX", 1 << 20), ("LINGER_VISITOR_BYTES_MAX", 1 << 20)
    ],
    "a bye to a link's peer that broke the rules": [("LINK_BYE_MS", 1000)],
    "UDP peer silent": [("UDP_IDLE_MS", 1000)],
    "link silent": [
        ("PING_CONNECTOR_MS", 1000), ("PING_ACCEPTOR_MS", 1000), ("LINK_DEAD_MS", 1000)
    ],
}  # fmt: skip


def documented() -> dict[str, list[int]]:
    """The numbers of each row of the table."""
    table = PAGE.split("## Deadlines\n", 1)[1].split("\n## ", 1)[0]
    rows = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("| ")][1:]
    return {what.strip(): [int(number) for number in re.findall(r"(\d+) (?:s|KiB|MiB)\b", when)] for what, when in rows}


def test_every_deadline_is_held_against_the_code():
    assert documented().keys() == DEADLINES.keys()


@pytest.mark.parametrize("what", DEADLINES)
def test_deadline_is_the_codes(what):
    numbers = [constant(name) / unit for name, unit in DEADLINES[what]]
    assert documented()[what] == numbers
