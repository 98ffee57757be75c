"""Rewriting a file that people keep, mount and edit too.

A symbolic link stays a link: what it leads to is written. The file is replaced in one step where its folder allows
that, else it is written in place: a single file mounted into a container cannot be renamed over, and a folder may be
closed where the file is not. Owner and group stay as they are. With `seen` nothing is written over a newer edit: where
the file holds something else by then, that stays.
Fails: OSError. A full disk damages nothing; a crash while writing in place may leave a part, in one step it cannot.
Source: rename(2), renameat2(2) of the Linux manual pages.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import stat
import tempfile
from pathlib import Path

GROWTH_BYTES = 4096  # what there has to be room for beyond what the file holds: a change adds less

_NO_RENAME = (errno.EBUSY, errno.EACCES, errno.EPERM, errno.EROFS)  # the file itself may still be written
_NO_EXCHANGE = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP)  # this kernel or file system cannot
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_MOUNTS = Path("/proc/self/mountinfo")


def write_file(path: Path, data: bytes, *, seen: bytes | None = None) -> bool:
    """Make the file hold `data`, for its owner alone unless it was open to its group by intent (0640).

    `seen`: what the caller read; False, and nothing is written, where the file is gone or holds something else.
    """
    target = Path(os.path.realpath(path))
    try:
        temporary = _temporary_for(target, data)
    except OSError as error:
        if error.errno not in _NO_RENAME or not target.exists():
            raise
        return _write_in_place(target, data, seen, error)
    try:
        return _put_in_place_of(target, temporary, seen)
    except OSError as error:
        if error.errno not in _NO_RENAME or not target.exists():
            raise
        return _write_in_place(target, data, seen, error)
    finally:
        temporary.unlink(missing_ok=True)


def require_writable(path: Path) -> None:
    """Raise OSError where write_file() would for want of rights or room; the file is not touched."""
    target = Path(os.path.realpath(path))
    try:
        with tempfile.TemporaryFile(dir=target.parent) as trial:
            if not _is_mounted(target):
                size_bytes = target.stat().st_size if target.exists() else 0
                os.posix_fallocate(trial.fileno(), 0, size_bytes + GROWTH_BYTES)
                return
    except OSError as error:
        if error.errno not in _NO_RENAME or not target.exists():
            raise
    os.close(os.open(target, os.O_WRONLY | os.O_CLOEXEC))


def _temporary_for(target: Path, data: bytes) -> Path:
    """A file beside it, with its owner and whole content, on disk. PermissionError where the owner cannot be kept and
    the file itself can be written."""
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")  # mode 0600
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            _take_rights(handle, target)
            stream.write(data)
            stream.flush()
            os.fsync(handle)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _take_rights(handle: int, target: Path) -> None:
    """Root writes a new file for whom the folder belongs to: a unit's user has to read it."""
    try:
        old = target.stat()
    except FileNotFoundError:
        folder = target.parent.stat()
        if os.geteuid() == 0 and folder.st_uid != 0:
            os.fchown(handle, folder.st_uid, folder.st_gid)
        return
    mine = os.fstat(handle)
    if (old.st_uid, old.st_gid) != (mine.st_uid, mine.st_gid):
        try:
            os.fchown(handle, old.st_uid, old.st_gid)
        except PermissionError:
            if os.access(target, os.W_OK):
                raise
    os.fchmod(handle, _mode_after(old.st_mode))


def _mode_after(mode: int) -> int:
    open_to_group = stat.S_IMODE(mode) & 0o047 == 0o040
    return 0o640 if open_to_group else 0o600


def _put_in_place_of(target: Path, temporary: Path, seen: bytes | None) -> bool:
    if seen is None:
        temporary.replace(target)
    elif _holds(target, seen):
        try:
            _exchange(temporary, target)
        except OSError as error:
            if error.errno not in _NO_EXCHANGE:
                raise
            temporary.replace(target)
        else:
            if not _holds(temporary, seen):  # edited between the look and the exchange
                _exchange(temporary, target)
                return False
    else:
        return False
    _sync_folder(target.parent)
    return True


def _holds(path: Path, seen: bytes) -> bool:
    try:
        return path.read_bytes() == seen
    except FileNotFoundError:  # an editor that puts the file aside before it writes a new one
        return False


def _exchange(one: Path, other: Path) -> None:
    """Let both names change places in one step, so that what was there can be looked at."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(other))


def _write_in_place(target: Path, data: bytes, seen: bytes | None, why: OSError) -> bool:
    try:
        handle = os.open(target, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        # A folder that cannot be written says less than the file that cannot: both are told by the file's reason.
        raise error from why
    try:
        size_bytes = os.fstat(handle).st_size
        before = os.pread(handle, size_bytes + 1, 0)
        if seen is not None and before != seen:
            return False
        try:
            if len(data) > size_bytes:
                os.posix_fallocate(handle, 0, len(data))  # a full disk is met before a byte is overwritten
            _write_all(handle, data)
        except OSError:
            with contextlib.suppress(OSError):
                _write_all(handle, before)
            raise
        with contextlib.suppress(PermissionError):
            os.fchmod(handle, _mode_after(os.fstat(handle).st_mode))
        os.fsync(handle)
        return True
    finally:
        os.close(handle)


def _write_all(handle: int, data: bytes) -> None:
    written = 0
    while written < len(data):
        written += os.pwrite(handle, data[written:], written)
    os.ftruncate(handle, len(data))


def _is_mounted(target: Path) -> bool:
    """Whether something is mounted on this very file."""
    try:
        lines = _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return False
    return any(_unescape(line.split(" ")[4]) == str(target) for line in lines)


def _unescape(text: str) -> str:
    """The kernel writes blanks and backslashes in octal."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
