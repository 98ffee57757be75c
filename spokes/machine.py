"""How much of the machine this process may use: memory and processors, each by the smallest limit that holds for it.

Read once, at the start: the host, the control groups of both versions up to their roots, resource limits, affinity.
Fails: never; a limit that cannot be read does not count.
Source: cgroups(7), Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/ of the kernel; proc_pid_mountinfo(5).
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

PROC = Path("/proc/self")
_V1_UNLIMITED_BYTES = 1 << 60  # version 1 says "unlimited" as the largest number of whole pages
_RLIMITS = {"address space": resource.RLIMIT_AS, "data": resource.RLIMIT_DATA}


class Limit(NamedTuple):
    """A number and where it comes from, in words for an operator."""

    value: float
    source: str


def memory_limit(proc: Path = PROC) -> Limit:
    """Bytes that this process may use at most."""
    found = [Limit(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), "this host's memory")]
    for folder in _control_groups("", proc):
        for name in ("memory.max", "memory.high"):
            found += _number(folder / name, f"cgroup v2 {name} ({folder})")
    for folder in _control_groups("memory", proc):
        found += _number(folder / "memory.limit_in_bytes", f"cgroup v1 memory.limit_in_bytes ({folder})")
    for name, which in _RLIMITS.items():
        soft, _ = resource.getrlimit(which)
        if soft != resource.RLIM_INFINITY:
            found.append(Limit(soft, f"resource limit of {name}"))
    return min(limit for limit in found if 0 < limit.value < _V1_UNLIMITED_BYTES)


def processor_limit(proc: Path = PROC) -> Limit:
    """Processors that this process can keep busy; a part counts as a part."""
    found = [Limit(len(os.sched_getaffinity(0)), "processors this process may run on")]
    for folder in _control_groups("", proc):
        found += _quota(_words(folder / "cpu.max"), f"cgroup v2 cpu.max ({folder})")
    for folder in _control_groups("cpu", proc):
        words = _words(folder / "cpu.cfs_quota_us") + _words(folder / "cpu.cfs_period_us")
        found += _quota(words, f"cgroup v1 cpu.cfs_quota_us ({folder})")
    return min(found)


def worker_count(processors: Limit) -> int:
    """Threads for them: one for each, and one for a part that is left."""
    return max(1, int(-(-processors.value // 1)))


def _control_groups(controller: str, proc: Path) -> Iterator[Path]:
    """The folders of the groups that this process is in, its own first, up to the root that can be seen.

    `controller` "" stands for version 2, which has one tree for all of them.
    """
    own = _own_group(controller, proc)
    if own is None:
        return
    for root, mount in _mounts(controller, proc):
        inside = own.relative_to(root) if own.is_relative_to(root) else PurePosixPath()
        folder = mount / inside
        while True:
            yield folder
            if folder == mount:
                return
            folder = folder.parent


def _own_group(controller: str, proc: Path) -> PurePosixPath | None:
    for line in _lines(proc / "cgroup"):
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controller in controllers.split(","):
            return PurePosixPath(path)
    return None


def _mounts(controller: str, proc: Path) -> Iterator[tuple[PurePosixPath, Path]]:
    """Where such trees are mounted: the group at the mount's root, and the place."""
    for line in _lines(proc / "mountinfo"):
        before, dash, after = line.partition(" - ")
        fields, kind = before.split(" "), after.split(" ")
        if not dash or len(fields) < 5 or len(kind) < 3:
            continue
        if kind[0] == ("cgroup" if controller else "cgroup2") and (not controller or controller in kind[2].split(",")):
            yield PurePosixPath(fields[3]), Path(fields[4])


def _number(path: Path, source: str) -> list[Limit]:
    words = _words(path)
    return [Limit(int(words[0]), source)] if words and words[0].isdigit() else []


def _quota(words: list[str], source: str) -> list[Limit]:
    """Microseconds of processor time in a period; "max" and -1 stand for any."""
    if len(words) == 2 and all(word.isdigit() and int(word) > 0 for word in words):
        return [Limit(int(words[0]) / int(words[1]), source)]
    return []


def _words(path: Path) -> list[str]:
    return [word for line in _lines(path) for word in line.split()]


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return []
