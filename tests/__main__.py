"""The whole test-suite: `python -m tests`, each folder in processes of its own, under a limit.

Owns: which folders run side by side, the limit of each, and the end of everything a folder left behind.
Bound: a folder may take PART_LIMIT_S. Then its tests are asked to end and, a little later, killed; the other folders
still give their verdict. Programs that its tests started are found by a mark in their environment and end with it.

    python -m tests                 all folders but those of SEPARATE
    python -m tests store wire      some of them
    python -m tests -- tests/wire/test_rules.py -k name     pytest with these words, in this terminal, same care
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

TESTS = Path(__file__).resolve().parent
MARK = "PYTEST_RUN_MARK"
PART_LIMIT_S = 20 * 60
DIRECT_LIMIT_S = 45 * 60
TERM_WITHIN_S = 10.0                     # from SIGTERM to SIGKILL
KILL_WITHIN_S = 10.0                     # a process in the kernel's hands may need a moment
LOOK_S = 0.2
SHOWN_BYTES_MAX = 60_000                 # of a failed folder's output

# Processes at once, two a core: about half of a test's time is waiting.
SLOTS = 2 * len(os.sched_getaffinity(0))

# How many processes share a folder's files; whichever is not here is small enough for one. The longest come first.
PROCESSES = {"fastpath": 2, "e2e": 2, "store": 2, "security": 2, "admin": 1, "cli": 1, "server": 1, "client": 1}

SEPARATE = {"benchmarks"}                # `make test-benchmarks`: minutes of load tools
WITHOUT_TESTS = {"support", "__pycache__"}
TOP = "top"                              # the files directly in tests/

OUTCOMES = ("passed", "failed", "skipped")


@dataclass
class Part:
    """One folder: its process while it runs, and what came of it."""

    name: str
    process_count: int
    log: Path
    mark: str = field(default_factory=lambda: secrets.token_hex(8))
    process: subprocess.Popen[bytes] | None = None
    began_s: float = 0.0
    took_s: float = 0.0
    status: int | None = None
    counts: dict[str, int] = field(default_factory=dict)

    def targets(self) -> list[str]:
        if self.name == TOP:
            return [str(path) for path in sorted(TESTS.glob("test_*.py"))]
        return [str(TESTS / self.name)]

    def start(self) -> None:
        words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *self.targets()]
        if self.process_count > 1:
            words += ["-n", str(self.process_count), "--dist", "loadfile"]
        self.began_s = time.monotonic()
        with self.log.open("wb") as file:
            self.process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
                env={**os.environ, MARK: self.mark}, cwd=TESTS.parent,
            )  # fmt: skip

    def poll(self) -> bool:
        """Whether it is over; ends it when its time is."""
        assert self.process is not None
        if self.process.poll() is None and time.monotonic() - self.began_s < PART_LIMIT_S:
            return False
        status = self.process.poll()
        end_marked(self.mark)
        self.process.wait()
        self.took_s = time.monotonic() - self.began_s
        self.status = 124 if status is None else status
        self.counts = counts_of(self.log.read_text(errors="replace"))
        return True

    def line(self) -> str:
        counted = ", ".join(f"{count} {word}" for word, count in self.counts.items() if count) or "no test"
        verdict = {0: "ok", 124: f"not over after {PART_LIMIT_S} s"}.get(self.status or 0, f"FAILED ({self.status})")
        return f"tests/{self.name:<12} {verdict:<12} {counted:<40} {self.took_s:6.0f} s"


def counts_of(log: str) -> dict[str, int]:
    """Of pytest's last line; a test whose set-up or clearing away went wrong counts as failed."""
    summary = re.compile(r"\d+ (passed|failed|skipped|errors?)\b.* in [\d.:]+")
    closing = [line for line in log.splitlines() if summary.search(line)]
    counts = dict.fromkeys(OUTCOMES, 0)
    for number, word in re.findall(r"(\d+) (passed|failed|skipped|error)", closing[-1] if closing else ""):
        counts["failed" if word == "error" else word] += int(number)
    return counts


def marked(mark: str) -> Iterator[int]:
    """Processes that were started by a folder's tests, however many steps ago."""
    wanted = f"{MARK}={mark}".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    yield int(entry.name)


def end_marked(mark: str, term_within_s: float = TERM_WITHIN_S) -> None:
    """SIGTERM once, so that what can clears up after itself does so; then SIGKILL until none is left."""
    for number, within_s in ((signal.SIGTERM, term_within_s), (signal.SIGKILL, KILL_WITHIN_S)):
        deadline = time.monotonic() + within_s
        told: set[int] = set()
        while left := set(marked(mark)):
            for pid in left - told:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            told |= left
            if time.monotonic() > deadline:
                break
            time.sleep(LOOK_S)
        else:
            return
    print(f"still there after SIGKILL: {sorted(left)}", flush=True)


def parts(names: list[str], logs: Path) -> list[Part]:
    folders = [path.name for path in TESTS.iterdir() if path.is_dir() and path.name not in WITHOUT_TESTS]
    known = [TOP, *sorted(folders)]
    unknown = set(names) - set(known)
    if unknown:
        raise SystemExit(f"no such folder of tests: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    chosen = names or [name for name in known if name not in SEPARATE]
    order = {name: index for index, name in enumerate(PROCESSES)}
    chosen.sort(key=lambda name: order.get(name, len(order)))
    return [Part(name, min(PROCESSES.get(name, 1), SLOTS), logs / f"{name}.log") for name in chosen]


def run(waiting: list[Part]) -> list[Part]:
    """All of them, as many at once as there are slots; one line for each that is over."""
    running: list[Part] = []
    done: list[Part] = []
    try:
        while waiting or running:
            free = SLOTS - sum(part.process_count for part in running)
            for part in [part for part in waiting if part.process_count <= free]:
                if part.process_count <= free:
                    free -= part.process_count
                    waiting.remove(part)
                    part.start()
                    running.append(part)
            for part in [part for part in running if part.poll()]:
                running.remove(part)
                done.append(part)
                print(part.line(), flush=True)
            time.sleep(LOOK_S)
    finally:
        for part in running:
            end_marked(part.mark)
    return done


def show_failures(done: list[Part]) -> None:
    for part in done:
        if part.status != 0:
            text = part.log.read_text(errors="replace")
            print(f"\n{'=' * 20} tests/{part.name} {'=' * 20}\n{text[-SHOWN_BYTES_MAX:]}", flush=True)


def run_direct(words: list[str]) -> int:
    """pytest in this terminal."""
    mark = secrets.token_hex(8)
    process = subprocess.Popen([sys.executable, "-m", "pytest", *words], env={**os.environ, MARK: mark})
    try:
        return process.wait(DIRECT_LIMIT_S)
    except subprocess.TimeoutExpired:
        print(f"not over after {DIRECT_LIMIT_S} s", flush=True)
        return 124
    finally:
        end_marked(mark)


def interrupted(number: int, frame: object) -> None:
    signal.signal(number, signal.SIG_IGN)
    raise SystemExit(128 + number)


def main(words: list[str]) -> int:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, interrupted)
    if words[:1] == ["--"]:
        return run_direct(words[1:])
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="spokes-tests-") as logs:
        done = run(parts(words, Path(logs)))
        show_failures(done)
    totals = {word: sum(part.counts.get(word, 0) for part in done) for word in OUTCOMES}
    failed = [part for part in done if part.status != 0]
    totals["failed"] += sum(not part.counts.get("failed") for part in failed)
    print(f"{time.monotonic() - began_s:.0f} s")
    print(", ".join(f"{totals[word]} {word}" for word in OUTCOMES), flush=True)
    return 1 if failed or not totals["passed"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
