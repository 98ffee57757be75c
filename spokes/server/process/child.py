"""`python -m spokes.server.process.child PARENT MODULE …`: runs a module that ends with its parent, however.

Owns: the kernel's promise to send SIGTERM at the parent's death (prctl(2), PR_SET_PDEATHSIG). It is asked for by the
child itself, because code between fork and exec in a program with threads may find a lock that nobody will release.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys

_PR_SET_PDEATHSIG = 1  # include/uapi/linux/prctl.h


def follow(parent_pid: int) -> None:
    """From now on SIGTERM comes when the parent ends; if it has ended already, we end here."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl refused PR_SET_PDEATHSIG")
    if os.getppid() != parent_pid:
        raise SystemExit(0)


if __name__ == "__main__":
    follow(int(sys.argv[1]))
    module, sys.argv[:] = sys.argv[2], sys.argv[2:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
