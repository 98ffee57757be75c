"""The default congestion control of a run, on a file that stands for the kernel's."""

from __future__ import annotations

import pytest

from benchmarks.congestion import congestion_default
from benchmarks.processes import BenchmarkError


def test_congestion_default_is_set_meanwhile_and_restored_after_an_error(tmp_path):
    path = tmp_path / "tcp_congestion_control"
    path.write_text("bbr\n")
    with pytest.raises(KeyError), congestion_default("cubic", path):
        assert path.read_text() == "cubic\n"
        raise KeyError
    assert path.read_text() == "bbr\n"


def test_congestion_default_unnamed_leaves_it_alone(tmp_path):
    path = tmp_path / "absent"
    with congestion_default("", path):
        assert not path.exists()


def test_congestion_default_that_cannot_be_set_says_which(tmp_path):
    with pytest.raises(BenchmarkError, match="congestion control cubic cannot"), congestion_default("cubic", tmp_path):
        pass
