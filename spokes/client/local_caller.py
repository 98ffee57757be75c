"""Asking the running client of a configuration, as the `spoke` commands do."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spokes.client.access_file import read_access
from spokes.errors import RemoteError, UnreachableError

Json = dict[str, Any]

CALL_TIMEOUT_S = 40.0  # an operation may wait for the server's answer twice
ANSWER_BYTES_MAX = 16 * 1024 * 1024
STATUS_TIMEOUT_S = 3.0  # answered at once, unless the client hangs: then it counts as none


@dataclass(frozen=True, slots=True)
class LocalCaller:
    """The local API of the client that runs with one configuration."""

    address: str
    port: int
    token: str
    pid: int

    @classmethod
    def find(cls, config_path: Path) -> LocalCaller | None:
        """The running client of this configuration, or None. An access file left by a killed one does not count."""
        for document in read_access(config_path):
            try:
                caller = cls(document["address"], int(document["port"]), document["token"], int(document["pid"]))
                if caller.status().get("pid") == caller.pid:
                    return caller
            except (KeyError, ValueError, TypeError, UnreachableError, RemoteError):
                continue
        return None

    @property
    def authority(self) -> str:
        return f"{self.address}:{self.port}"

    def headers(self) -> list[tuple[str, str]]:
        """Of a request with a body."""
        return [("Authorization", f"Bearer {self.token}"), ("Content-Type", "application/json")]

    def status(self) -> Json:
        return self._call("GET", "/status", None, STATUS_TIMEOUT_S)

    def perform(self, op: str, args: Json) -> Json:
        result = self._call("POST", "/operations", {"op": op, "args": args}).get("result")
        return result if isinstance(result, dict) else {}

    def _call(self, method: str, path: str, document: Json | None, timeout_s: float = CALL_TIMEOUT_S) -> Json:
        from spokes.http_client import NotHttpError, Request, ask  # loaded where a client runs that can be asked

        body = json.dumps(document).encode() if document else None
        request = Request(
            method=method, target=path, host=self.authority, headers=self.headers() if document else (), body=body
        )
        try:
            _, content = ask(
                self.address, self.port, request, timeout_s=timeout_s, body_bytes_max=ANSWER_BYTES_MAX
            )
            answer = json.loads(content)
        except (OSError, ValueError, NotHttpError) as error:
            raise UnreachableError(f"the running client does not answer: {error}", hint="start it again") from None
        if not isinstance(answer, dict):
            raise UnreachableError("the running client answers with something else", hint="start it again")
        if refusal := answer.get("error"):
            raise RemoteError(
                str(refusal.get("message")), code=str(refusal.get("code")), hint=str(refusal.get("hint") or "")
            )
        return answer
