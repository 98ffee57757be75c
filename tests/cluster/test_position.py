import pytest
from hypothesis import given
from hypothesis import strategies as st

from spokes.cluster.position import NUMBER_MAX, Epoch, Position, parse_position
from spokes.errors import ClusterMessageError

UIDS = st.text("0123456789abcdef", min_size=32, max_size=32)
POSITIONS = st.builds(
    lambda number, owner, seq: Position(Epoch(number, owner), seq), st.integers(0, NUMBER_MAX), UIDS,
    st.integers(0, NUMBER_MAX),
)
A, B = "a" * 32, "b" * 32


def test_position_newer_epoch_is_ahead_of_any_seq():
    assert Position(Epoch(2, A), 1) > Position(Epoch(1, B), 10**9)
    assert Position(Epoch(2, A), 2) > Position(Epoch(2, A), 1)
    assert Epoch(2, B) > Epoch(2, A)     # one of two that were promoted apart is deposed, everywhere the same


@given(POSITIONS)
def test_position_text_reads_back(position):
    assert parse_position(position.text()) == position


@pytest.mark.parametrize("text", [
    "", "1", f"1:{A}", f"1:{A}:", f"-1:{A}:1", f"1:{A.upper()}:1", f"01:{A}:1", f"1:{A}:1\n", f"1:{A}:{NUMBER_MAX + 1}",
    f"{10**30}:{A}:1", f"\u0661:{A}:1",
])  # fmt: skip
def test_parse_position_malformed_refused(text):
    with pytest.raises(ClusterMessageError):
        parse_position(text)
