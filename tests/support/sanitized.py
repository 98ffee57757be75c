"""Starts this interpreter again with the sanitizer's library before all others, which it has to be.

A .pth file of a sanitized tree's site-packages imports it (Makefile). What the tests start besides, PostgreSQL or nginx,
was not built for a sanitizer and would hang under one: so the interpreters ask for it one by one, and pass nothing on.
"""

import os
import sys
from pathlib import Path

PRELOAD = os.environ.get("SANITIZER_PRELOAD", "")

if PRELOAD:
    if PRELOAD.split()[0] in Path("/proc/self/maps").read_text():
        os.environ.pop("LD_PRELOAD", None)
    else:
        os.execve(sys.executable, sys.orig_argv, {**os.environ, "LD_PRELOAD": PRELOAD})
