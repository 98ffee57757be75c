"""What a wheel is made of: nothing that only tests call."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# As setuptools would go about it, without compiling anything.
CONTENTS = """
import json, sys
import Cython.Build
from distutils.core import run_setup

Cython.Build.cythonize = lambda extensions, **options: extensions
done = run_setup("setup.py", ["--quiet"], stop_after="config")
build_ext = done.get_command_obj("build_ext")
build_ext.inplace = int(sys.argv[1])
build_ext.ensure_finalized()
print(json.dumps({"packages": done.packages, "extensions": [one.name for one in build_ext.extensions]}))
"""


def contents(in_place: bool) -> dict[str, list[str]]:
    done = subprocess.run(
        [sys.executable, "-c", "import setuptools" + CONTENTS, str(int(in_place))],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def hooks(names: list[str]) -> list[str]:
    return [name for name in names if name.startswith("spokes._fastpath.hooks")]


@pytest.fixture(scope="module")
def wheel() -> dict[str, list[str]]:
    return contents(in_place=False)


def test_wheel_has_the_engine_and_none_of_its_hooks(wheel):
    assert "spokes._fastpath.engine" in wheel["extensions"]
    assert "spokes._fastpath.bindings" in wheel["packages"]
    assert hooks(wheel["extensions"]) == hooks(wheel["packages"]) == []


def test_build_in_place_has_every_hook():
    found = {path.stem for path in (ROOT / "spokes/_fastpath/hooks").glob("*.pyx")}
    assert {name.rpartition(".")[2] for name in hooks(contents(in_place=True)["extensions"])} == found


def test_sources_of_hooks_are_in_no_wheel_as_data():
    """What MANIFEST.in names in a package's folder is taken along."""
    assert "prune spokes/_fastpath/hooks" in (ROOT / "MANIFEST.in").read_text().splitlines()
