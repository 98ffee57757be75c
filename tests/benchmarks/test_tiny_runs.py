"""Every row for a moment, so that the tools never rot. Nothing here judges a time."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from benchmarks.harness import run_rows
from benchmarks.rows import ROWS, Row
from benchmarks.scale import TINY

LOAD_PROGRAMS = ("nginx", "wrk", "iperf3")      # without them no row can run; benchmarks/install-peers.sh installs them

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(
        not all(shutil.which(name, path="/usr/bin:/usr/sbin:/usr/local/bin:/sbin") for name in LOAD_PROGRAMS),
        reason=f"needs {', '.join(LOAD_PROGRAMS)}",
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_row_tiny_run_measures_every_peer_that_is_here(row: Row, record_property):
    [result] = run_rows([row], TINY)
    if "*" in result.skipped:
        pytest.skip(result.skipped["*"])
    record_property("skipped", result.skipped)
    assert result.failed == {}
    assert result.rounds.keys() | result.skipped.keys() == set(row.peers)
    metrics = {target.metric for target in row.targets} | {target.own_metric for target in row.targets} - {""}
    for rounds in result.rounds.values():
        assert len(rounds) == 1
    if row.own in result.rounds:
        assert metrics <= result.rounds[row.own][0].keys()
    elif set(result.skipped) == set(row.peers):
        pytest.skip(str(result.skipped))


def test_row_with_an_earlier_tree_measures_its_programs_beside_these(tmp_path):
    """The tree at hand stands for the earlier one."""
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "bin").symlink_to(Path(sys.executable).parent)
    [row] = [one for one in ROWS if one.name == "latency"]
    [result] = run_rows([row], TINY, peers=["spokes"], tree_before=tmp_path)
    assert result.failed == {}
    assert result.rounds.keys() == {"spokes", "spokes-before"}
