"""The caller's side of the control socket: how other programs of this host ask the running server.

One JSON object a line: `{"op": "status"}` is answered by `{"result": {…}}` or `{"error": {"code", "message"}}`.
Bound: ANSWER_DEADLINE_S for each step of a call, ANSWER_BYTES_MAX for an answer.
Fails: NoServerError when nobody listens, ControlError when the server refuses or does not answer.
"""

from __future__ import annotations

import json
import logging
import socket
from pathlib import Path
from typing import Any

from spokes.errors import ControlError, NoServerError

log = logging.getLogger(__name__)

CONTROL_SOCKET_NAME = "control.sock"     # in the data directory
STANDBY_SOCKET_PREFIX, STANDBY_SOCKET_SUFFIX = "standby-", ".sock"   # one for each standby of a shared data directory
ANSWER_BYTES_MAX = 64 * 1024 * 1024
ANSWER_DEADLINE_S = 30.0


def call_control(path: Path, op: str, *, deadline_s: float = ANSWER_DEADLINE_S, **args: Any) -> Any:
    """One operation of the server that has this socket, for programs without an event loop."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(deadline_s)
        try:
            sock.connect(str(path))
        except PermissionError:
            raise ControlError(
                f"the server in {path.parent} cannot be asked: this user may not look there",
                hint="run it as root or as the server's user",
            ) from None
        except OSError as error:
            raise NoServerError(
                f"no server runs in {path.parent} ({error.strerror or error})", hint="start it with `spokes server`"
            ) from None
        try:
            sock.sendall(json.dumps({"op": op, **args}).encode() + b"\n")
            with sock.makefile("rb") as file:
                answer = json.loads(file.readline(ANSWER_BYTES_MAX))
        except (OSError, ValueError) as error:
            raise ControlError(f"the server in {path.parent} did not answer: {error}") from None
    if "error" in answer:
        raise ControlError(f"the server refused: {answer['error']['message']}", code=answer["error"]["code"])
    return answer["result"]


def standby_status(directory: Path) -> dict[str, Any] | None:
    """What a standby of this host says of itself; None: none runs here."""
    for path in sorted(directory.glob(f"{STANDBY_SOCKET_PREFIX}*{STANDBY_SOCKET_SUFFIX}")):
        try:
            facts: dict[str, Any] = call_control(path, "status")
        except ControlError:     # another host's, or left by one that was killed
            continue
        return facts
    return None


class Control:
    """The control socket of one server, for a program that goes on when that server is not there."""

    def __init__(self, path: Path, *, deadline_s: float = ANSWER_DEADLINE_S) -> None:
        self._path = path
        self._deadline_s = deadline_s

    def call(self, op: str, **args: Any) -> Any:
        return call_control(self._path, op, deadline_s=self._deadline_s, **args)

    def is_refused_port(self, port: int) -> bool:
        """As changed(); whether the server could not listen on this port. One that is away may find it free later."""
        try:
            return port in self.call("changed")["refused_ports"]
        except ControlError as error:
            log.warning("server not told of a change", extra={"error": str(error), "code": error.code})
            return False

    def changed(self) -> bool:
        """Tell the server that the change log grew; False if it could not be told.

        The mutation stands all the same: a server that was away reads the log when it is back.
        """
        try:
            self.call("changed")
        except ControlError as error:
            log.warning("server not told of a change", extra={"error": str(error), "code": error.code})
            return False
        return True
