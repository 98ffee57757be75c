"""Where a running client leaves the address and token of its local API, and where `spoke` commands look for them.

Beside the configuration (`<configuration>.api`, mode 0600); where that folder cannot be written, in a folder for files
of a run, by a name made from the configuration's path. A client that can write in none of them runs without.
Fails: what others may have written there is not believed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Json = dict[str, Any]

_UNIT_DIRECTORY = Path("/run/spoke")  # RuntimeDirectory of the systemd unit
_MODE = 0o600


def access_path(config_path: Path) -> Path:
    """The first place: beside the configuration."""
    return config_path.with_name(config_path.name + ".api")


def write_access(config_path: Path, document: Json) -> Path | None:
    """The file that was written; None where none can be."""
    data = json.dumps(document).encode() + b"\n"
    for path in _places(config_path, {os.geteuid()}):
        try:
            if path.parent == _shared_directory(os.geteuid()):
                path.parent.mkdir(mode=0o700, exist_ok=True)
                if not _is_private(path.parent, os.geteuid()):
                    continue
            _write(path, data)
        except OSError:
            continue
        return path
    return None


def read_access(config_path: Path) -> Iterator[Json]:
    """What clients of this configuration have left; one that was killed leaves its file behind."""
    owners = {os.geteuid(), 0}
    with contextlib.suppress(OSError):
        owners.add(config_path.stat().st_uid)
    for path in _places(config_path, owners):
        document = _read(path, owners)
        if document is not None:
            yield document


def remove_access(path: Path, token: str) -> None:
    """Only our own: a client that took over has written its own already."""
    try:
        if json.loads(path.read_text(encoding="ascii")).get("token") == token:
            path.unlink()
    except (OSError, ValueError, AttributeError):
        return


def _places(config_path: Path, owners: set[int]) -> Iterator[Path]:
    yield access_path(config_path)
    name = hashlib.sha256(os.fsencode(config_path.absolute())).hexdigest()[:32] + ".api"
    yield _UNIT_DIRECTORY / name
    for owner in sorted(owners):
        yield Path(f"/run/user/{owner}") / f"spoke-{name}"
        yield _shared_directory(owner) / name


def _shared_directory(owner: int) -> Path:
    """Below a directory where everybody may write: believed only while it is the owner's alone."""
    return Path(tempfile.gettempdir()) / f"spoke-{owner}"


def _is_private(directory: Path, owner: int) -> bool:
    status = directory.lstat()
    return stat.S_ISDIR(status.st_mode) and status.st_uid == owner and status.st_mode & 0o077 == 0


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, _MODE)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _read(path: Path, owners: set[int]) -> Json | None:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as stream:
            status = os.fstat(handle)
            folder = path.parent.stat()
            believed = owners if folder.st_mode & 0o002 else owners | {folder.st_uid}
            if not stat.S_ISREG(status.st_mode) or status.st_uid not in believed or status.st_mode & 0o022:
                return None
            document = json.loads(stream.read(4096))
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None
