"""docs/protocol.md and the code say the same numbers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from spokes._fastpath.hooks.link_hooks import NUMBERS, parse_frame, parse_open

from spokes.wire.handshake import HELLO_DEADLINE_S, LEAD_DEADLINE_S
from spokes.wire.parts import MESSAGE_BYTES_MAX
from tests.support.frames import FrameType, open_payload

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "protocol.md").read_text()


def section(title: str) -> str:
    return re.split(r"^#{2,3} ", PAGE.split(f" {title}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


def rows(title: str) -> list[list[str]]:
    """Cells of the table's rows below its heading and rule."""
    lines = [line for line in section(title).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def constant(name: str) -> int:
    """A number of the engine, which stands in one place only."""
    texts = [path.read_text() for path in sorted((ROOT / "spokes" / "_fastpath").rglob("*.p[yx][xd]"))]
    found = [number for text in texts for number in re.findall(rf"^ +{name} = (\d+)", text, re.MULTILINE)]
    assert len(found) == 1, name
    return int(found[0])


def test_frame_types_are_those_of_the_code():
    documented = {name: int(number) for number, name, _, _ in rows("Frame types")}
    assert documented == {kind.name: NUMBERS[kind.name] for kind in FrameType}


def test_reasons_are_those_of_the_code():
    documented = {name: int(number) for number, name, _ in rows("Reasons (RESET, and in `bye`)")}
    assert len(documented) == 10
    assert documented == {name: NUMBERS[name] for name in documented}
    lower = {name for name in NUMBERS if name.islower()} - {"header", "payload_max", "window", "open_fixed"}
    assert set(documented) == lower


def test_header_fields_fill_the_header():
    fields = rows("Frame header")
    assert [int(offset) for offset, _, _ in fields] == [0, 2, 3, 4]
    assert sum(int(size) for _, size, _ in fields) == NUMBERS["header"]
    assert f"0\N{EN DASH}{NUMBERS['payload_max']}" in section("Frame header")


def test_open_fields_fill_its_fixed_part():
    fields = rows("OPEN")[:-1]
    at = 0
    for offset, size, _ in fields:
        assert int(offset) == at
        at += int(size)
    assert at == NUMBERS["open_fixed"] == len(open_payload())


def test_open_services_are_those_of_the_code():
    documented = [int(number) for number in re.findall(r"(\d) (?:HTTP|TCP|TLS pass-through|UDP)", section("OPEN"))]
    accepted = [service for service in range(256) if parse_open(open_payload(service))[0] == 0]
    assert documented == accepted


def test_first_window_is_the_codes():
    assert f"limit of {NUMBERS['window']} bytes" in section("Credit")


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (r"nothing arrived for (\d+) s\. The client", "LINK_DEAD_MS"),
        (r"The client sends PING when nothing arrived for (\d+) s", "PING_CONNECTOR_MS"),
        (r"the server when nothing arrived for (\d+) s", "PING_ACCEPTOR_MS"),
    ],
)
def test_liveness_is_the_codes(words, name):
    found = re.search(words, section("Liveness").replace("\n", " "))
    assert found
    assert int(found[1]) * 1000 == constant(name)


def test_limits_of_a_peer_are_the_codes():
    numbers = [int(number) for number in re.findall(r"\b(\d+)\b", section("Limits of a peer"))]
    goodbye_bytes = constant("LINK_OUT_BYTES_MAX") + constant("LINK_OUT_RESERVE_BYTES")
    names = (
        "PEER_PINGS_PER_S_MAX",
        "PEER_OPENS_PER_S_MAX",
        "PEER_CONTROLS_PER_S_MAX",
        "PEER_CONTROL_BYTES_PER_S_MAX",
        "LINK_OUT_BYTES_LIMIT",
    )
    assert numbers == [goodbye_bytes, *(constant(name) for name in names)]


@pytest.mark.parametrize(
    ("title", "words", "value", "unit"),
    [
        ("Handshake", r"within (\d+) s of TLS", HELLO_DEADLINE_S, 1),
        ("Losing a link", r"without a primary link for (\d+) s", LEAD_DEADLINE_S, 1),
        ("Control messages", r"at most (\d+) MiB", MESSAGE_BYTES_MAX, 1 << 20),
    ],
)
def test_control_messages_are_the_codes(title, words, value, unit):
    found = re.search(words, section(title).replace("\n", " "))
    assert found
    assert int(found[1]) * unit == value


def test_datagram_bound_is_the_codes():
    bound = int(re.search(r"UDP payload, 0\W(\d+) bytes", section("Frame types"))[1])  # type: ignore[index]
    for length, rc in ((bound, NUMBERS["header"]), (bound + 1, -5002)):
        assert parse_frame(length.to_bytes(2, "big") + bytes([FrameType.DATAGRAM, 0, 0, 0, 0, 1]))[0] == rc


def test_goodbye_bounds_are_the_codes():
    words = section("Limits of a peer").replace("\n", " ")
    queued = int(re.search(r"more than (\d+) bytes wait", words)[1])  # type: ignore[index]
    assert queued == constant("LINK_OUT_BYTES_MAX") + constant("LINK_OUT_RESERVE_BYTES")
    assert "has two seconds" in words
    assert constant("LINK_BYE_MS") == 2000
