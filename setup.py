"""Only the extensions; everything else is configured in pyproject.toml.

SPOKES_DEBUG=1      little optimisation, whole debug information
SPOKES_SANITIZE     address (with UBSan) or thread; `make asan` and `make tsan` run the tests on such builds
SPOKES_COVERAGE=1   line tracing for coverage.py
"""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

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

JOBS = len(os.sched_getaffinity(0))

setup(
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
