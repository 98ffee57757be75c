"""What kind of file system a path lies on: local, or one that other hosts may have mounted too.

Fails: never; what cannot be asked counts as local.
Source: statfs(2), whose f_type is a number of the kernel's (linux/magic.h).
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

_STATFS_BYTES = 256  # more than struct statfs takes on any architecture

# File systems over a network, and FUSE, which may be one (sshfs, GlusterFS, bind mounts into containers).
SHARED_TYPES = {
    0x6969: "NFS",
    0x517B: "SMB",
    0xFF534D42: "CIFS",
    0xFE534D42: "SMB2",
    0x65735546: "FUSE",
    0x01021997: "9P",
    0x00C36400: "Ceph",
    0x5346414F: "AFS",
    0x0BD00BD0: "Lustre",
    0x01161970: "GFS2",
    0x7461636F: "OCFS2",
    0x47504653: "GPFS",
}


def shared_file_system(path: Path) -> str:
    """The name of the file system that hosts may share, which the nearest existing folder of the path lies on; "":
    it is a local one."""
    standing = next((one for one in (path, *path.parents) if one.exists()), Path("/"))
    return SHARED_TYPES.get(file_system_type(standing), "")


def file_system_type(path: Path) -> int:
    """f_type of statfs(2); 0 where the kernel does not say."""
    libc = ctypes.CDLL(None, use_errno=True)
    found = ctypes.create_string_buffer(_STATFS_BYTES)
    if libc.statfs(os.fsencode(path), found) != 0:
        return 0
    return int(ctypes.cast(found, ctypes.POINTER(ctypes.c_long))[0]) & 0xFFFFFFFF
