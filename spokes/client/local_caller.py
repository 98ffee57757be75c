"""Asking the running client of a configuration, as the `spoke` commands do."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spokes.client.access_file import read_access
from spokes.errors import RemoteError, UnreachableError

Json = dict[str, Any]

CALL_TIMEOUT_S = 40.0  # an operation may wait for the server's answer twice
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

    def status(self) -> Json:
        return self._call("GET", "/status", None, STATUS_TIMEOUT_S)

    def perform(self, op: str, args: Json) -> Json:
        result = self._call("POST", "/operations", {"op": op, "args": args}).get("result")
        return result if isinstance(result, dict) else {}

    def _call(self, method: str, path: str, document: Json | None, timeout_s: float = CALL_TIMEOUT_S) -> Json:
        connection = http.client.HTTPConnection(self.address, self.port, timeout=timeout_s)
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"} if document else {}
        try:
            connection.request(method, path, body=json.dumps(document) if document else None, headers=headers)
            answer = json.loads(connection.getresponse().read())
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise UnreachableError(f"the running client does not answer: {error}", hint="start it again") from None
        finally:
            connection.close()
        if not isinstance(answer, dict):
            raise UnreachableError("the running client answers with something else", hint="start it again")
        if refusal := answer.get("error"):
            raise RemoteError(
                str(refusal.get("message")), code=str(refusal.get("code")), hint=str(refusal.get("hint") or "")
            )
        return answer
