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
