"""What keeps a run of the tests honest: verdicts, limits, skips, and the end of what tests leave behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import __main__ as runner
from tests.conftest import is_known, known_skips
from tests.support.ports import free_port_range
from tests.support.processes import wait_until

ROOT = Path(__file__).parent.parent
DEAF = "import signal, sys, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"


def run_pytest(tmp_path: Path, text: str, *words: str) -> subprocess.CompletedProcess[str]:
    """A file of tests under the project's own rules."""
    (tmp_path / "conftest.py").write_text((ROOT / "tests/conftest.py").read_text())
    (tmp_path / "known_skips.txt").write_text("test_it.py::test_known  # why\n")
    (tmp_path / "test_it.py").write_text(text)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", tmp_path, *words, tmp_path],
        cwd=tmp_path, capture_output=True, text=True, timeout=100,
    )  # fmt: skip


@pytest.mark.parametrize("log, counts", [
    ("..\n2 passed in 1.20s\n", (2, 0, 0)),
    ("F\n1 failed, 3 passed, 2 skipped, 1 warning in 75.10s (0:01:15)\n", (3, 1, 2)),
    ("E\n4 passed, 2 errors in 0.50s\n", (4, 2, 0)),
    ("killed in the middle", (0, 0, 0)),
])
def test_counts_are_those_of_the_last_line(log, counts):
    assert tuple(runner.counts_of(log)[word] for word in runner.OUTCOMES) == counts


def test_unknown_folder_is_named(tmp_path):
    with pytest.raises(SystemExit, match="nonsense"):
        runner.parts(["nonsense"], tmp_path)


def test_every_folder_with_tests_is_run_by_somebody(tmp_path):
    run = {part.name for part in runner.parts([], tmp_path)} | runner.SEPARATE
    with_tests = {path.parent.relative_to(ROOT / "tests") for path in (ROOT / "tests").rglob("test_*.py")}
    assert {path.parts[0] if path.parts else runner.TOP for path in with_tests} == run


@pytest.mark.parametrize("test, known", [
    ("a/test_x.py::test_y", True), ("a/test_x.py::test_y[p::[q]]", True), ("b/test_z.py::anything", True),
    ("a/test_x.py::test_other", False), ("a/test_x.py", False),
])
def test_skip_is_known_by_its_test_or_its_file(test, known):
    assert is_known(test, {"a/test_x.py::test_y", "b/test_z.py"}) is known


def test_known_skips_name_tests_that_exist():
    for name in known_skips():
        path, _, test = name.partition("::")
        assert not test or f"def {test}(" in (ROOT / path).read_text(), name


@pytest.mark.parametrize("words", [(), ("-n", "1")], ids=["alone", "xdist"])
def test_thread_that_never_ends_does_not_hold_up_the_verdict(tmp_path, words):
    done = run_pytest(tmp_path, """
import threading
def test_passes():
    threading.Thread(target=threading.Event().wait).start()
""", *words)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name, code", [("test_known", 0), ("test_unknown", 1)])
def test_skip_that_is_on_no_list_fails_the_run(tmp_path, name, code):
    done = run_pytest(tmp_path, f"""
import pytest
def test_passes(): pass
def {name}(): pytest.skip("not today")
""")
    assert done.returncode == code, done.stdout
    assert ("not today" in done.stdout) is bool(code)


def test_program_left_behind_is_ended_though_it_is_deaf_and_no_child():
    mark = "of-" + Path(__file__).stem + str(os.getpid())
    starter = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {DEAF!r}], start_new_session=True)"
    subprocess.run([sys.executable, "-c", starter], env={**os.environ, runner.MARK: mark}, check=True, timeout=30)
    wait_until(lambda: list(runner.marked(mark)), what="the program")
    (pid,) = runner.marked(mark)
    wait_until(lambda: int(signal_mask(pid, "SigIgn"), 16) >> (signal.SIGTERM - 1) & 1, what="its deafness")
    runner.end_marked(mark, term_within_s=0.1)
    assert list(runner.marked(mark)) == []


def signal_mask(pid: int, name: str) -> str:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith(name))


def test_port_ranges_of_one_process_differ_and_other_processes_get_others():
    ours = {free_port_range(4).begin for _ in range(5)}
    assert len(ours) == 5
    text = "from tests.support.ports import free_port_range; print(free_port_range(4).begin)"
    theirs = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True, cwd=ROOT)
    assert all(abs(int(theirs.stdout) - port) >= 4 for port in ours)
