"""Kinds of file systems, as the kernel of this host tells them."""

from pathlib import Path

from spokes import file_systems
from spokes.file_systems import file_system_type, shared_file_system

PROC_TYPE = 0x9FA0  # PROC_SUPER_MAGIC of linux/magic.h


def test_type_is_the_kernels(tmp_path):
    assert file_system_type(Path("/proc")) == PROC_TYPE
    assert file_system_type(tmp_path / "missing") == 0


def test_shared_is_asked_of_the_nearest_folder_that_is_there(tmp_path, monkeypatch):
    assert shared_file_system(Path("/proc/self/missing/file")) == ""
    monkeypatch.setitem(file_systems.SHARED_TYPES, PROC_TYPE, "proc")
    assert shared_file_system(Path("/proc/self/missing/file")) == "proc"
