"""Ticket keys: newest first, rotated by age, kept over a restart, never the reason that something does not start."""

import json
import stat

import pytest

from spokes import clock
from spokes.server.certificates.ticket_keys import (
    FILE_NAME,
    ROTATION_S,
    TICKET_KEY_BYTES,
    TicketKeys,
    read_keys,
    rotated,
)
from tests.support.fake_engine import FakeEngine


@pytest.fixture
def engine():
    return FakeEngine()


async def test_first_look_makes_a_key_and_a_restart_takes_it_over(engine, tmp_path):
    await TicketKeys(engine, tmp_path).check()
    (made,) = engine.ticket_keys
    assert len(made) == TICKET_KEY_BYTES
    assert stat.S_IMODE((tmp_path / FILE_NAME).stat().st_mode) == 0o600
    again = FakeEngine()
    await TicketKeys(again, tmp_path).check()
    assert again.ticket_keys == [made]


async def test_key_rotates_and_the_two_before_it_still_open(engine, tmp_path):
    tickets, seen, manual = TicketKeys(engine, tmp_path), [], clock.ManualClock()
    with clock.replaced(manual):
        for _ in range(5):
            await tickets.check()
            await tickets.check()                 # not due: the same
            seen.insert(0, engine.ticket_keys[0])
            assert engine.ticket_keys == seen[:3]
            assert [key.value for key in read_keys(tmp_path / FILE_NAME)] == seen[:3]
            manual.advance(ROTATION_S)
    assert len(set(seen)) == 5


def test_key_from_the_future_does_not_stay_for_ever():
    keys = rotated([], clock.wall_s() + 10 * ROTATION_S)
    assert len(rotated(keys, clock.wall_s())) == 2


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"{}", b'{"keys": 1}', b'{"keys": [{"made_at": 1, "value": "AAAA"}]}',
     b'{"keys": [{"made_at": "x", "value": ""}]}', bytes(10_000)],
)  # fmt: skip
async def test_file_that_cannot_be_used_is_made_anew(engine, tmp_path, content):
    (tmp_path / FILE_NAME).write_bytes(content)
    await TicketKeys(engine, tmp_path).check()
    assert len(engine.ticket_keys) == 1
    assert len(json.loads((tmp_path / FILE_NAME).read_text())["keys"]) == 1


async def test_directory_that_cannot_be_written_costs_nothing_now(engine, tmp_path, caplog):
    await TicketKeys(engine, tmp_path / "missing").check()
    assert len(engine.ticket_keys) == 1
    assert "ticket keys not kept" in caplog.text
