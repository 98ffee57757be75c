"""The data directory: private, writable, and one server's."""

import os
import stat
import subprocess
import sys

import pytest

from spokes.errors import DataDirError, DataLockedError
from spokes.server.base.datadir import DataLock, prepare_directory, write_private

HOLD = "import sys; from pathlib import Path; from spokes.server.base.datadir import DataLock; "
HOLD += "lock = DataLock(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"


def test_directory_is_made_for_its_owner_only(tmp_path):
    path = prepare_directory(tmp_path / "a" / "b")
    assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_directory_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataDirError, match="file is no directory"):
        prepare_directory(tmp_path / "file")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_directory_not_writable_is_refused(tmp_path):
    (tmp_path / "d").mkdir(mode=0o500)
    with pytest.raises(DataDirError, match="cannot be written"):
        prepare_directory(tmp_path / "d")


def test_lock_held_by_another_process_names_it_and_is_free_after_kill(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(DataLockedError, match=f"process {holder.pid}"):
            DataLock(tmp_path)
        holder.kill()
        holder.wait()
    DataLock(tmp_path).close()


def test_write_private_replaces_whole_and_follows_no_link(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("old")
    path = tmp_path / "secret"
    path.symlink_to(victim)
    write_private(path, b"new")
    assert victim.read_text() == "old"
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.lstat().st_mode) == 0o600
    assert {one.name for one in tmp_path.iterdir()} == {"secret", "victim"}
