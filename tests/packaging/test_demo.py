"""`make demo` as a user meets it: a URL that works, and nothing left after Ctrl-C."""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def pids_of_session_with(marker: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if marker.encode() in command:
                found.append(int(entry.name))
    return found


class Demo:
    """`packaging/demo.py` of a tree of its own: the script's directory decides where .demo lies."""

    def __init__(self, tree: Path) -> None:
        copy = tree / "packaging/demo.py"
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes((ROOT / "packaging/demo.py").read_bytes())
        self.popen = subprocess.Popen(
            [sys.executable, str(copy)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def url(self) -> str:
        assert self.popen.stdout and self.popen.stderr
        line = next((line for line in self.popen.stdout if "curl" in line), None)
        assert line, self.popen.stderr.read()
        found = re.search(r"curl (http://\S+)", line)
        assert found
        return found[1]

    def end(self, number: int = signal.SIGTERM) -> int:
        self.popen.send_signal(number)
        return self.popen.wait(timeout=30)


@pytest.fixture
def demo(tmp_path):
    runs = []

    def start() -> Demo:
        runs.append(Demo(tmp_path))
        return runs[-1]

    yield start
    for run in runs:
        if run.popen.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                run.end()
        run.popen.kill()
        run.popen.communicate()


def page(url: str) -> str:
    done = subprocess.run(["curl", "-sS", "--fail", url], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.e2e
@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_demo_prints_a_working_curl_line_and_leaves_no_process(tmp_path, demo, end):
    run = demo()
    assert "It works" in page(run.url())
    assert pids_of_session_with(str(tmp_path / ".demo"))
    assert run.end(end) == 0
    assert pids_of_session_with(str(tmp_path / ".demo")) == []


@pytest.mark.e2e
@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
def test_second_demo_in_a_tree_says_so_and_leaves_the_first_alone(demo):
    first = demo()
    url = first.url()
    second = demo()
    _, said = second.popen.communicate(timeout=60)
    assert second.popen.returncode == 1
    assert "a demo runs here already" in said and url in said
    assert "It works" in page(url)
    assert first.end() == 0
    again = demo()              # the lock goes with its holder, and the tunnel's name stays
    assert again.url().split(":")[1] == url.split(":")[1]


@pytest.mark.e2e
@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
def test_demo_takes_other_ports_where_the_usual_ones_are_in_use(demo):
    with contextlib.ExitStack() as stack:
        for port in (8080, 8443):
            taken = stack.enter_context(socket.socket())
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):      # somebody else's: as good
                taken.bind(("127.0.0.1", port))
                taken.listen()
        url = demo().url()
        assert ":8080/" not in url
        assert "It works" in page(url)
