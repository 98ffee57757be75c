"""Only the extensions; everything else is configured in pyproject.toml.

SPOKES_DEBUG=1      little optimisation, whole debug information
SPOKES_SANITIZE     address (with UBSan) or thread; `make asan` and `make tsan` run the tests on such builds
SPOKES_COVERAGE=1   line tracing for coverage.py
"""

import os
import shutil
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

DEBUG = os.environ.get("SPOKES_DEBUG") == "1"
SANITIZERS = {"address": "address,undefined", "thread": "thread"}
SANITIZE = os.environ.get("SPOKES_SANITIZE", "")
COVERAGE = os.environ.get("SPOKES_COVERAGE") == "1"

compile_args = ["-std=gnu11", "-Wall", "-Wextra", "-Wno-unused-parameter", "-fno-strict-aliasing"]
link_args: list[str] = []
if SANITIZE:
    compile_args += ["-O1", "-g", "-fno-omit-frame-pointer", f"-fsanitize={SANITIZERS[SANITIZE]}"]
    link_args += [f"-fsanitize={SANITIZERS[SANITIZE]}"]
else:
    compile_args += ["-O1", "-g"] if DEBUG else ["-O3", "-g1"]
macros: list[tuple[str, str | None]] = [("CYTHON_TRACE_NOGIL", "1")] if COVERAGE else []

extensions = [
    Extension(
        ".".join(source.with_suffix("").parts),
        [str(source)],
        libraries=["ssl", "crypto", "pthread"],
        extra_compile_args=compile_args,
        extra_link_args=link_args,
        define_macros=macros,
    )
    for source in sorted(Path("spokes/_fastpath").rglob("*.pyx"))
]

HOOKS = "spokes._fastpath.hooks"  # what only tests call: built in place alone, and in no wheel


class BuildExt(build_ext):
    def finalize_options(self) -> None:
        super().finalize_options()
        if not self.inplace:
            self.extensions = [one for one in self.extensions if not one.name.startswith(HOOKS)]

    def run(self) -> None:
        super().run()
        if not self.inplace:  # an earlier build in place has left its own there
            shutil.rmtree(Path(self.build_lib, *HOOKS.split(".")), ignore_errors=True)


JOBS = len(os.sched_getaffinity(0))

setup(
    cmdclass={"build_ext": BuildExt},
    options={"build_ext": {"parallel": JOBS}},
    ext_modules=cythonize(
        extensions,
        nthreads=JOBS,
        compiler_directives={
            "language_level": 3,
            "boundscheck": False,
            "wraparound": False,
            "cdivision": True,
            "initializedcheck": False,
            "linetrace": COVERAGE,
        },
    ),
)
