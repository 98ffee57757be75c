"""Descriptors of this process, told apart, so that what another thread closes meanwhile is no difference."""

import contextlib
from pathlib import Path


def open_fds() -> set[tuple[str, str]]:
    """Numbers and what they lead to. What is in a later set and not in an earlier one was left open; others may go."""
    found = set()
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.add((path.name, str(path.readlink())))
    return {(number, target) for number, target in found if not target.endswith("/fd")}      # the listing's own
