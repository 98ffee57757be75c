"""The status line that systemd shows of a service, by its notification socket.

Fails: never; without systemd, or where it takes no notification, nothing is told.
Source: sd_notify(3), the protocol of NOTIFY_SOCKET.
"""

from __future__ import annotations

import contextlib
import os
import socket


def tell_status(text: str) -> None:
    """`systemctl status` shows the text until the next one."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.setblocking(False)
        sock.connect("\0" + path[1:] if path.startswith("@") else path)
        sock.send(f"STATUS={text}\n".encode())
