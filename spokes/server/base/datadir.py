"""The data directory: private, and one server's at a time.

Owns: the lock file; the kernel frees the lock when its holder dies, however it dies.
Fails: DataDirError (cannot be made or written), DataLockedError (another server has it; names its process).
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from spokes.errors import DataDirError, DataLockedError

DIRECTORY_MODE = 0o700
FILE_MODE = 0o600
LOCK_NAME = "lock"
FIRST_TOKEN_NAME = "first-token"  # noqa: S105 (a file's name)


def prepare_directory(path: Path) -> Path:
    """The absolute path, after making the directory where it is missing and checking that it can be written."""
    path = path.absolute()
    try:
        path.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
    except FileExistsError:
        raise DataDirError(f"data directory {path} is no directory", hint="name another with --data") from None
    except OSError as error:
        raise DataDirError(
            f"data directory {path} cannot be made: {error.strerror}", hint="name another with --data"
        ) from None
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        raise DataDirError(
            f"data directory {path} cannot be written by this user",
            hint="change its owner, or name another with --data",
        )
    return path


def write_private(path: Path, data: bytes) -> None:
    """Writes a file that only its owner may read; never half of it, and never through a link someone left there."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        temporary.unlink(missing_ok=True)
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise DataDirError(f"{path} cannot be written: {error.strerror}") from None


class DataLock:
    """The exclusive hold of a data directory; released by close(), or by the kernel."""

    def __init__(self, directory: Path) -> None:
        path = directory / LOCK_NAME
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
        except OSError as error:
            raise DataDirError(f"{path} cannot be opened: {error.strerror}") from None
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)
        except BlockingIOError:
            holder = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip()
            os.close(self._fd)
            raise DataLockedError(
                f"data directory {directory} is in use by process {holder or 'unknown'}",
                hint="stop that server, or name another directory with --data",
            ) from None
        except OSError as error:
            os.close(self._fd)
            raise DataDirError(f"{path} cannot be locked: {error.strerror}") from None

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
