"""The RPM's specification: as rpmbuild reads it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import spokes

SPEC = Path(__file__).parents[2] / "packaging/spokes.spec"


def test_spec_has_the_programs_version():
    assert re.search(r"^Version:\s+(\S+)$", SPEC.read_text(), re.MULTILINE)[1] == spokes.__version__


@pytest.mark.skipif(not shutil.which("rpmspec"), reason="needs rpmspec")
def test_spec_is_understood_by_rpm():
    done = subprocess.run(
        ["rpmspec", "-P", "--define", f"spokes_python {sys.executable}", SPEC],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not re.search(r"%\{?\w*(home|spokes_python|python_abi)", done.stdout), "a macro was left as it stood"
    # The interpreter by a name that stays what it is, and libraries in the versions that were linked.
    version = ".".join(map(str, sys.version_info[:2]))
    assert re.search(rf"^Requires: +/\S+/python{version}$", done.stdout, re.MULTILINE)
    assert re.search(r"^Requires: +openssl-libs >= [0-9.]+$", done.stdout, re.MULTILINE)


def test_spec_checks_nothing_by_a_negated_command_that_cannot_fail():
    assert not re.search(r"^!", SPEC.read_text(), re.MULTILINE), "`set -e` does not look at a command behind `!`"
