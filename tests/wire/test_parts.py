"""Parts of control messages: what goes in comes out, and no more than the bound."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spokes.errors import ProtocolError
from spokes.wire.parts import FLAG_MORE, MESSAGE_BYTES_MAX, PART_BYTES_MAX, PartJoiner, split_message


@pytest.mark.parametrize(
    "size", [1, PART_BYTES_MAX - 1, PART_BYTES_MAX, PART_BYTES_MAX + 1, 3 * PART_BYTES_MAX, MESSAGE_BYTES_MAX]
)
def test_split_joined_is_the_same_message(size):
    message = bytes(i % 251 for i in range(size))
    parts = split_message(message)
    joiner = PartJoiner()
    results = [joiner.feed(part.payload, part.flags) for part in parts]
    assert results[:-1] == [None] * (len(parts) - 1)
    assert results[-1] == message
    assert all(len(part.payload) <= PART_BYTES_MAX for part in parts)


def test_split_empty_or_too_long_is_refused():
    with pytest.raises(ProtocolError):
        split_message(b"")
    with pytest.raises(ProtocolError):
        split_message(b"x" * (MESSAGE_BYTES_MAX + 1))


def test_joiner_past_the_bound_is_refused():
    joiner = PartJoiner()
    with pytest.raises(ProtocolError):
        for _ in range(MESSAGE_BYTES_MAX // PART_BYTES_MAX + 1):
            joiner.feed(b"x" * PART_BYTES_MAX, FLAG_MORE)


def test_joiner_empty_part_is_refused():
    with pytest.raises(ProtocolError):
        PartJoiner().feed(b"", FLAG_MORE)


def test_joiner_unknown_flags_are_ignored():
    assert PartJoiner().feed(b"x", 0x80) == b"x"


@given(st.lists(st.lists(st.binary(min_size=1, max_size=20), min_size=1, max_size=5), max_size=5))
def test_joiner_several_messages_in_a_row_stay_apart(messages):
    joiner = PartJoiner()
    for parts in messages:
        results = [joiner.feed(part, FLAG_MORE if i < len(parts) - 1 else 0) for i, part in enumerate(parts)]
        assert results[-1] == b"".join(parts)
