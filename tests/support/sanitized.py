"""Starts this interpreter again with the sanitizer's library before all others, which it has to be.

A .pth file of a sanitized tree's site-packages imports it (Makefile). What the tests start besides, PostgreSQL or
nginx, was not built for a sanitizer and would hang under one: so the interpreters ask for it one by one, and pass
nothing on.
"""

import os
import sys
from pathlib import Path

PRELOAD = os.environ.get("SANITIZER_PRELOAD", "")
IS_SANITIZED = bool(PRELOAD)
NAME = "SANITIZED_NAME"                 # a program is named after its script, which a second start would lose
COMM = Path("/proc/self/comm")

if PRELOAD:
    if PRELOAD.split()[0] in Path("/proc/self/maps").read_text():
        os.environ.pop("LD_PRELOAD", None)
        COMM.write_text(os.environ.pop(NAME, "") or COMM.read_text())
    else:
        again = {**os.environ, "LD_PRELOAD": PRELOAD, NAME: COMM.read_text().strip()}
        os.execve(sys.executable, sys.orig_argv, again)
