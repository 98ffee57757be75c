import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from spokes import file_edit
from spokes.file_edit import require_writable, write_file

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount and change owners")


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "folder" / "file"
    path.parent.mkdir()
    path.write_bytes(b"old")
    path.chmod(0o600)
    return path


@pytest.fixture(params=["exchange", "rename"])
def way(request, monkeypatch):
    """With and without a file system that exchanges names."""
    if request.param == "rename":

        def refused(one, other):
            raise OSError(errno.EINVAL, "Invalid argument")

        monkeypatch.setattr(file_edit, "_exchange", refused)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("seen", [None, b"old"])
def test_write_replaces_in_one_step_and_leaves_nothing_beside(path, seen):
    with path.open("rb") as reader:
        assert write_file(path, b"new", seen=seen)
        assert reader.read() == b"old"  # whoever had it open reads it to its end
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("now", [b"edited", b"", None])
def test_write_newer_edit_stays(path, now):
    if now is None:
        path.unlink()
    else:
        path.write_bytes(now)
    assert not write_file(path, b"new", seen=b"old")
    assert (path.read_bytes() if path.exists() else None) == now


def test_write_edit_between_the_look_and_the_exchange_stays(path, monkeypatch):
    exchange = file_edit._exchange

    def edited_first(one, other):
        monkeypatch.setattr(file_edit, "_exchange", exchange)
        path.write_bytes(b"edited")
        exchange(one, other)

    monkeypatch.setattr(file_edit, "_exchange", edited_first)
    assert not write_file(path, b"new", seen=b"old")
    assert path.read_bytes() == b"edited"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("seen", [None, b"old"])
def test_write_through_links_which_stay(path, tmp_path, seen):
    first, second = tmp_path / "first", tmp_path / "second"
    first.symlink_to(path)
    second.symlink_to("first")
    assert write_file(second, b"new", seen=seen)
    assert second.is_symlink()
    assert first.is_symlink()
    assert path.read_bytes() == b"new"


def test_write_link_to_nothing_yet_makes_what_it_names(tmp_path):
    link = tmp_path / "link"
    link.symlink_to("made")
    write_file(link, b"new")
    assert (tmp_path / "made").read_bytes() == b"new"


@pytest.mark.parametrize(
    ("before", "after"), [(0o600, 0o600), (0o640, 0o640), (0o644, 0o600), (0o660, 0o640), (0o400, 0o600)]
)
def test_write_others_are_shut_out_and_a_group_stays(path, before, after):
    path.chmod(before)
    write_file(path, b"new")
    assert mode(path) == after


@as_root
def test_write_owner_and_group_stay(path):
    os.chown(path, 4711, 4712)
    write_file(path, b"new", seen=b"old")
    assert (path.stat().st_uid, path.stat().st_gid) == (4711, 4712)


@as_root
def test_write_new_file_of_root_belongs_to_the_owner_of_its_folder(path):
    os.chown(path.parent, 4711, 4712)
    made = path.with_name("made")
    write_file(made, b"new")
    assert (made.stat().st_uid, made.stat().st_gid, mode(made)) == (4711, 4712, 0o600)


def as_nobody(body):
    """Run Python code as a user without rights; its output. What it imports may lie where that user cannot read."""
    drop = "import os\nfrom pathlib import Path\nfrom spokes.file_edit import write_file, require_writable\n"
    code = f"{drop}os.setgroups([])\nos.setgid(65534)\nos.setuid(65534)\n{body}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


WRITE = (
    "path = Path({!r})\n"
    "try:\n    require_writable(path)\n    print(write_file(path, {!r}, seen=b'old'))\n"
    "except OSError as error:\n    print(error.strerror)\n"
)


@pytest.fixture
def open_path():
    """A file where every user may come; a temporary directory of pytest lets nobody in."""
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        path = Path(directory) / "folder" / "file"
        path.parent.mkdir(mode=0o755)
        path.write_bytes(b"old")
        yield path


@as_root
@pytest.mark.parametrize("data", [b"new", b"o", b"a much longer text"])
def test_write_folder_closed_file_open_is_written_in_place(open_path, data):
    os.chown(open_path, 65534, 65534)
    inode = open_path.stat().st_ino
    assert as_nobody(WRITE.format(str(open_path), data)) == "True"
    assert open_path.read_bytes() == data
    assert open_path.stat().st_ino == inode


@as_root
def test_write_in_place_newer_edit_stays(open_path):
    os.chown(open_path, 65534, 65534)
    open_path.write_bytes(b"edited")
    assert as_nobody(WRITE.format(str(open_path), b"new")) == "False"
    assert open_path.read_bytes() == b"edited"


@as_root
def test_write_foreign_file_in_an_own_folder_is_replaced(open_path):
    os.chown(open_path.parent, 65534, 65534)
    assert as_nobody(WRITE.format(str(open_path), b"new")) == "True"
    assert open_path.read_bytes() == b"new"


@as_root
def test_write_nothing_open_is_told_and_changes_nothing(open_path):
    assert as_nobody(WRITE.format(str(open_path), b"new")) == "Permission denied"
    assert open_path.read_bytes() == b"old"


@as_root
def test_write_in_place_full_disk_damages_nothing(tmp_path):
    done = subprocess.run(
        ["unshare", "-m", sys.executable, "-c", FULL_DISK, tmp_path], capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["No", "space", "left", "on", "device", "old"], done.stderr


FULL_DISK = """
import os, subprocess, sys
from pathlib import Path
from spokes.file_edit import write_file
folder = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], check=True)
real, mounted = folder / "real", folder / "mounted"
real.write_bytes(b"old")
mounted.touch()
subprocess.run(["mount", "--bind", real, mounted], check=True)
try:
    write_file(mounted, bytes(1 << 20))
except OSError as error:
    print(error.strerror)
print(mounted.read_bytes().decode())
"""


SINGLE_FILE = """
import os, subprocess, sys
from pathlib import Path
from spokes.file_edit import require_writable, write_file
folder = Path(sys.argv[1])
real, mounted = folder / "real file", folder / "mounted file"
real.write_bytes(b"old")
mounted.touch()
subprocess.run(["mount", "--bind", real, mounted], check=True)
require_writable(mounted)
print(write_file(mounted, b"newer", seen=b"old"), write_file(mounted, b"late", seen=b"old"), real.read_bytes().decode())
subprocess.run(["mount", "-o", "remount,ro,bind", mounted], check=True)
for attempt in (require_writable, lambda path: write_file(path, b"late")):
    try:
        attempt(mounted)
    except OSError as error:
        print(error.strerror)
print(real.read_bytes().decode(), sorted(path.name for path in folder.iterdir()))
"""


@as_root
def test_write_single_file_mounted_is_written_in_place(tmp_path):
    done = subprocess.run(
        ["unshare", "-m", sys.executable, "-c", SINGLE_FILE, tmp_path], capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines() == [
        "True False newer",
        "Read-only file system",
        "Read-only file system",
        "newer ['mounted file', 'real file']",
    ], done.stderr


def test_require_writable_touches_nothing(path):
    before = path.stat().st_mtime_ns
    require_writable(path)
    require_writable(path.with_name("other"))
    assert path.stat().st_mtime_ns == before
    assert list(path.parent.iterdir()) == [path]


ROOM = """
import os, subprocess, sys
from pathlib import Path
from spokes.file_edit import require_writable
folder = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], check=True)
path = folder / "file"
for held_bytes in (0, 24 << 10, 40 << 10):
    path.write_bytes(bytes(held_bytes))
    try:
        require_writable(path)
        print("room", os.listdir(folder))
    except OSError as error:
        print(error.strerror, os.listdir(folder))
"""


@as_root
def test_require_writable_asks_for_room_for_the_file_beside_itself(tmp_path):
    done = subprocess.run(
        ["unshare", "-m", sys.executable, "-c", ROOM, tmp_path], capture_output=True, text=True, check=False
    )
    full = "No space left on device ['file']"
    assert done.stdout.splitlines() == ["room ['file']", "room ['file']", full], done.stderr
