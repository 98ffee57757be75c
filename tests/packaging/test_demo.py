"""`make demo` as a user meets it: a URL that works, and nothing left after Ctrl-C."""

from __future__ import annotations

import os
import re
import shutil
import signal
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


@pytest.mark.e2e
@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_demo_prints_a_working_curl_line_and_leaves_no_process(tmp_path, end):
    copy = tmp_path / "packaging/demo.py"       # its directory decides where .demo lies
    copy.parent.mkdir()
    copy.write_bytes((ROOT / "packaging/demo.py").read_bytes())
    demo = subprocess.Popen([sys.executable, str(copy)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert demo.stdout and demo.stderr
        line = next((line for line in demo.stdout if "curl" in line), None)
        assert line, demo.stderr.read()
        command = re.search(r"curl (http://\S+)", line)
        assert command
        done = subprocess.run(["curl", "-sS", "--fail", command[1]], capture_output=True, text=True, check=False)
        assert "It works" in done.stdout, done.stderr
        assert pids_of_session_with(str(tmp_path / ".demo"))
        os.kill(demo.pid, end)
        assert demo.wait(timeout=30) == 0
        assert pids_of_session_with(str(tmp_path / ".demo")) == []
    finally:
        demo.kill()
        demo.communicate()
