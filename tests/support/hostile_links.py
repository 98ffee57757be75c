"""A client of a real server written by hand: says what it likes, from the address it likes."""

from __future__ import annotations

import json
import socket
import time
from typing import Any

from tests.support.frames import FramePeer, FrameType, client_context, frame
from tests.support.processes import DOMAIN, ServerProcess

PART_BYTES = 65535
HELLO: dict[str, Any] = {"type": "hello", "versions": [1], "agent": {}, "time": int(time.time())}


class HostileLink(FramePeer):
    """A link that is up; nothing was said on it."""

    def __init__(self, server: ServerProcess, *, source: str = "127.0.0.1") -> None:
        sock = socket.create_connection(("127.0.0.1", server.https_port), timeout=10, source_address=(source, 0))
        super().__init__(client_context().wrap_socket(sock, server_hostname=DOMAIN))

    def say(self, *messages: dict[str, Any] | bytes) -> None:
        """Control messages; bytes are sent as they are."""
        for message in messages:
            data = message if isinstance(message, bytes) else json.dumps(message).encode()
            for start in range(0, len(data), PART_BYTES):
                more = start + PART_BYTES < len(data)
                self.send(frame(FrameType.CONTROL, 0, data[start : start + PART_BYTES], flags=int(more)))

    def hear(self, *kinds: str) -> dict[str, Any]:
        """The next control message of one of these types, or of any."""
        while True:
            data = b""
            while True:
                part = self.read(FrameType.CONTROL)
                data += part.payload
                if not part.flags & 1:
                    break
            message: dict[str, Any] = json.loads(data)
            if not kinds or message["type"] in kinds:
                return message

    def log_in(self, key: str, mode: str = "serve") -> dict[str, Any]:
        self.say(HELLO, {"type": "login", "key": key, "mode": mode})
        return self.hear("ready", "bye")

    def outcome(self, kind: str) -> dict[str, Any]:
        return self.hear(kind, "bye")
