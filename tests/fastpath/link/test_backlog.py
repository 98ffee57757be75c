"""Datagrams that wait for a link: order, room, and which of them are forgotten."""

from __future__ import annotations

from spokes._fastpath.hooks.link_hooks import backlog_trace

ROOM = 131072
RECORD = 8


def test_backlog_gives_back_what_it_was_given_in_order():
    pushes = [(2 * number, bytes([number]) * (number * 37 % 1500)) for number in range(60)]
    assert backlog_trace(pushes) == ([0] * 60, pushes)


def test_backlog_filled_to_the_last_byte_drops_nothing():
    pushes = [(2, b"x" * (ROOM // 2 - RECORD)), (4, b"y" * (ROOM // 2 - RECORD))]
    assert backlog_trace(pushes) == ([0, 0], pushes)


def test_backlog_without_room_drops_the_oldest_quarter():
    size = 1024 - RECORD
    pushes = [(number, bytes([number % 256]) * size) for number in range(ROOM // 1024 + 1)]
    dropped, taken = backlog_trace(pushes)
    assert dropped == [0] * (ROOM // 1024) + [ROOM // 1024 // 4]
    assert taken == pushes[ROOM // 1024 // 4 :]


def test_backlog_drops_all_for_one_that_needs_all_the_room():
    large = (3, b"z" * (ROOM - RECORD))
    assert backlog_trace([(1, b"a"), (2, b"b"), large]) == ([0, 0, 2], [large])


def test_backlog_refuses_what_never_fits_and_keeps_the_rest():
    assert backlog_trace([(1, b"a"), (2, bytes(ROOM))]) == ([0, -1], [(1, b"a")])


def test_backlog_of_empty_datagrams_keeps_each():
    assert backlog_trace([(1, b""), (2, b"")]) == ([0, 0], [(1, b""), (2, b"")])
