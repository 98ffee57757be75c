"""Real processes of a run: started, awaited by condition, read through /proc, ended.

Owns: a scratch directory and every process started in it. Bound: nothing outlives the `with` block of its Room.
Fails: BenchmarkError names the process and quotes the end of its log.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

POLL_INTERVAL_S = 0.02
STOP_TIMEOUT_S = 15.0
LOG_TAIL_BYTES = 800


class BenchmarkError(Exception):
    """A measurement that cannot be made, in words for the report."""


class MissingError(BenchmarkError):
    """A program this machine does not have."""


def find_program(name: str, *places: str) -> str:
    """The program's path; `places` are looked at before PATH. Raises MissingError."""
    for place in places:
        if os.access(place, os.X_OK):
            return place
    # Daemons live in sbin, which an ordinary user's PATH may lack.
    found = shutil.which(name, path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin")
    if not found:
        raise MissingError(f"{name} is not installed")
    return found


def raise_fd_limit() -> int:
    """Lift this process's (and its children's) limit of open files as far as allowed; the limit in force."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 100_000
    for target in (max(hard, wanted), hard):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (target, target))
            return target
    return soft


def wait_until(condition: Callable[[], bool], what: str, within_s: float = 20.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            raise BenchmarkError(f"{what}: not within {within_s:g} s")
        time.sleep(POLL_INTERVAL_S)


def accepts(address: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((address, port), timeout=1.0):
        return True
    return False


def free_port(address: str = "127.0.0.1") -> int:
    """A port nobody listens on now. Below the ephemeral range, where outgoing conns of a load cannot take it."""
    for _ in range(200):
        port = 20_000 + int.from_bytes(os.urandom(2), "big") % 12_000
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind((address, port))
            return port
    raise BenchmarkError("no free port found")


class Process:
    """One child with its own process group and log file."""

    def __init__(self, name: str, log_path: Path, start: Callable[[], subprocess.Popen[bytes]]) -> None:
        self.name = name
        self.log_path = log_path
        self._start_again = start
        self.popen = start()

    @property
    def pid(self) -> int:
        return self.popen.pid

    def log_tail(self) -> str:
        with contextlib.suppress(OSError):
            return self.log_path.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace").strip()
        return ""

    def last_words(self) -> str:
        return (self.log_tail().splitlines() or ["no word"])[-1]

    def check(self) -> None:
        """Raise when it has ended on its own."""
        if self.popen.poll() is not None:
            raise BenchmarkError(f"{self.name} ended with status {self.popen.returncode}: {self.last_words()}")

    def wait_for(self, condition: Callable[[], bool], what: str, within_s: float = 20.0) -> None:
        def alive_and_met() -> bool:
            self.check()
            return condition()

        wait_until(alive_and_met, f"{self.name}: {what}", within_s)

    def wait_for_port(self, address: str, port: int, within_s: float = 20.0) -> None:
        self.wait_for(lambda: accepts(address, port), f"listening on {address}:{port}", within_s)

    def tree_pids(self) -> list[int]:
        """This process and its descendants."""
        parents: dict[int, list[int]] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError, IndexError, ValueError):
                    fields = (entry / "stat").read_text().rpartition(")")[2].split()
                    parents.setdefault(int(fields[1]), []).append(int(entry.name))
        found, waiting = [], [self.pid]
        while waiting:
            pid = waiting.pop()
            found.append(pid)
            waiting += parents.get(pid, [])
        return found

    def rss_bytes(self) -> int:
        """Resident memory of the whole tree."""
        return sum(_rss_bytes(pid) for pid in self.tree_pids())

    def cpu_s(self) -> float:
        """User and system time of the whole tree so far."""
        return sum(_cpu_s(pid) for pid in self.tree_pids())

    def child_pids(self) -> list[int]:
        """Its descendants alone."""
        return [pid for pid in self.tree_pids() if pid != self.pid]

    def child_pss_bytes(self) -> int:
        """Memory of its descendants, pages that they share counted once."""
        return sum(_pss_bytes(pid) for pid in self.child_pids())

    def child_rss_bytes(self) -> int:
        return sum(_rss_bytes(pid) for pid in self.child_pids())

    def child_cpu_s(self) -> float:
        return sum(_cpu_s(pid) for pid in self.child_pids())

    def own_rss_bytes(self) -> int:
        return _rss_bytes(self.pid)

    def fd_count(self) -> int:
        with contextlib.suppress(OSError):
            return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))
        return 0

    def restart(self) -> None:
        """End it and start it again with the same words; its log goes on."""
        self.stop()
        self.popen = self._start_again()

    def stop(self) -> None:
        if self.popen.poll() is None:
            self.popen.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.popen.wait(STOP_TIMEOUT_S)
        with contextlib.suppress(ProcessLookupError):   # whatever of its group is left
            os.killpg(self.pid, signal.SIGKILL)
        self.popen.wait()
        for stream in (self.popen.stdin, self.popen.stdout):
            if stream:
                stream.close()


def _rss_bytes(pid: int) -> int:
    with contextlib.suppress(OSError, ValueError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def _pss_bytes(pid: int) -> int:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def _cpu_s(pid: int) -> float:
    with contextlib.suppress(OSError, ValueError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


class Room:
    """A scratch directory and the processes in it; leaving the block ends them in reverse order."""

    def __init__(self, *, prefix: Sequence[str] = (), address: str = "127.0.0.1") -> None:
        self.prefix = tuple(prefix)         # put before every command: `ip netns exec …`
        self.address = address
        self.processes: list[Process] = []
        self.path = Path()
        self._exits = contextlib.ExitStack()

    def __enter__(self) -> Room:
        self.path = Path(tempfile.mkdtemp(prefix="spokes-bench-"))
        self.path.chmod(0o755)              # an upstream that runs as another user reads its files here
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None,
    ) -> None:
        for process in reversed(self.processes):
            process.stop()
        self._exits.close()
        shutil.rmtree(self.path, ignore_errors=True)

    def on_exit(self, call: Callable[[], object]) -> None:
        """Called when the block is left and its processes have ended."""
        self._exits.callback(call)

    def inside(self, prefix: Sequence[str], address: str) -> Room:
        """The same room seen from another network namespace: same directory, same end."""
        view = Room(prefix=prefix, address=address)
        view.path, view.processes = self.path, self.processes
        return view

    def start(
        self, name: str, argv: Sequence[str], *, env: Mapping[str, str] | None = None,
        stdin: int | None = subprocess.DEVNULL, stdout: int | None = None,
    ) -> Process:
        """Start it with output in a log file; `stdout=PIPE` leaves its standard output to the caller."""
        log_path = self.path / f"{name}.{len(self.processes)}.log"

        def popen() -> subprocess.Popen[bytes]:
            with log_path.open("ab") as log:
                target: IO[bytes] | int = log if stdout is None else stdout
                return subprocess.Popen(
                    [*self.prefix, *argv], stdin=stdin, stdout=target, stderr=log, cwd=self.path,
                    env={**os.environ, **(env or {})}, start_new_session=True,
                )

        process = Process(name, log_path, popen)
        self.processes.append(process)
        return process

    def run(self, argv: Sequence[str], *, within_s: float = 60.0, env: Mapping[str, str] | None = None) -> str:
        """Run to its end; its standard output. Raises BenchmarkError with its words when it fails."""
        try:
            done = subprocess.run(
                [*self.prefix, *argv], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=within_s,
                cwd=self.path, env={**os.environ, **(env or {})}, check=False,
            )
        except subprocess.TimeoutExpired:
            raise BenchmarkError(f"{Path(argv[0]).name}: not done within {within_s:g} s") from None
        if done.returncode != 0:
            words = (done.stderr.strip() or done.stdout.strip())[-LOG_TAIL_BYTES:]
            raise BenchmarkError(f"{Path(argv[0]).name} failed with status {done.returncode}: {words}")
        return done.stdout


def run_load(argv: Sequence[str], *, within_s: float) -> subprocess.CompletedProcess[str]:
    """Run a load tool to its end; how it ended is for the caller to judge."""
    try:
        return subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=within_s,
        )
    except subprocess.TimeoutExpired:
        raise BenchmarkError(f"{Path(argv[0]).name}: not done within {within_s:g} s") from None


@contextlib.contextmanager
def stopping(process: Process) -> Iterator[Process]:
    """End one process before its Room ends."""
    try:
        yield process
    finally:
        process.stop()
