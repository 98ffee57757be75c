"""Where a run took place: machine, kernel, limits and versions, as facts for the report."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import resource
import subprocess
from pathlib import Path

import spokes
from benchmarks.congestion import DEFAULT_PATH
from benchmarks.processes import MissingError, find_program

REPOSITORY = Path(__file__).resolve().parent.parent

_VERSIONS = {
    "haproxy": ("-v",), "nginx": ("-v",), "rathole": ("--version",), "wrk": ("-v",), "iperf3": ("--version",),
}
_NUMBER = re.compile(r"(?<![\d.:-])\d+(?:\.\d+)+(?:[-+~]\S+)?")


def describe_machine() -> dict[str, str]:
    return {
        "processor": _cpu_model(),
        "cores": str(os.cpu_count()),
        "memory_gib": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f}",
        "kernel": f"{platform.system()} {platform.release()}",
        "distribution": _distribution(),
        "congestion_control_default": _read(DEFAULT_PATH),
        "congestion_controls": _read("/proc/sys/net/ipv4/tcp_available_congestion_control"),
        "open_files_max": str(resource.getrlimit(resource.RLIMIT_NOFILE)[1]),
        "load_average_before": f"{os.getloadavg()[0]:.2f}",
        "python": platform.python_version(),
    }


def describe_versions(places: dict[str, str]) -> dict[str, str]:
    """Version of each program; `places`: where one lies that is not in PATH."""
    versions = {"spokes": f"{spokes.__version__} {_commit()}".strip()}
    for name, arguments in _VERSIONS.items():
        try:
            argv = [find_program(name, places.get(name, "")), *arguments]
        except MissingError:
            versions[name] = "not installed"
            continue
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        number = _NUMBER.search(done.stdout + done.stderr)
        versions[name] = number.group() if number else "unknown"
    return versions


def _cpu_model() -> str:
    for line in _read("/proc/cpuinfo").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _distribution() -> str:
    with contextlib.suppress(OSError):
        return platform.freedesktop_os_release().get("PRETTY_NAME", "unknown")
    return "unknown"


def _commit() -> str:
    with contextlib.suppress(OSError):
        argv = ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty"]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        return done.stdout.strip()
    return ""


def _read(path: str | Path) -> str:
    with contextlib.suppress(OSError):
        return Path(path).read_text().strip()
    return "unknown"
