"""An existing client of the Admin API, in little: signs in with a key, keeps the cookie and one connection.

Bound: one call at a time. Fails: BenchmarkError for every answer that is not done, in the server's words.
Source: docs/admin-api.md.
"""

from __future__ import annotations

import contextlib
import http.client
import json
from typing import Any

from benchmarks.peers.spokes import DOMAIN, Control
from benchmarks.processes import BenchmarkError, wait_until
from spokes.model.api_keys import CreateApiKey
from spokes.model.operation import SYSTEM, perform
from spokes.store import Store

V1 = "/api/admin/v1.0"
OWN = "/api/admin/v1.1"
ANSWER_WITHIN_S = 60.0
READY_WITHIN_S = 60.0


class ApiClient:
    def __init__(self, control: Control, key: str) -> None:
        self._conn = http.client.HTTPConnection(control.link_address, control.http_port, timeout=ANSWER_WITHIN_S)
        self._headers = {"Host": DOMAIN, "Content-Type": "application/json", "Accept": "application/json"}
        self.answer_bytes = 0           # of the latest answer
        self.call(f"{V1}/auth", {"key": key})

    def call(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """A call that must be done; a GET when there is no body."""
        answer = self.attempt(path, body)
        if not answer.get("status"):
            raise BenchmarkError(f"{path}: {answer.get('error')}")
        return answer

    def attempt(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """The answer, be it a refusal."""
        data = self.fetch(path, body)
        try:
            answer: dict[str, Any] = json.loads(data)
        except ValueError:
            raise BenchmarkError(f"{path}: answer is no JSON: {data[:80]!r}") from None
        return answer

    def fetch(self, path: str, body: dict[str, Any] | None = None) -> bytes:
        """The answer's bytes, unread: for whoever measures the server and not this program."""
        try:
            data = "null\n" if body is None else json.dumps(body)
            self._conn.request("GET" if body is None else "POST", path, data, self._headers)
            answer = self._conn.getresponse()
            received = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise BenchmarkError(f"{path}: {error or type(error).__name__}") from None
        if cookie := answer.getheader("Set-Cookie"):
            self._headers["Cookie"] = cookie.partition(";")[0]
        self.answer_bytes = len(received)
        return received

    def close(self) -> None:
        self._conn.close()


def create_key(control: Control) -> str:
    """The value of a new key of the system."""
    with open_store(control) as store:
        return perform(store, SYSTEM, CreateApiKey("benchmark"))[1]


def open_store(control: Control) -> Store:
    """The server's own, from outside, as the shell uses it."""
    return Store.open(str(control.data / "spokes.db"))


def wait_for_admin(control: Control) -> None:
    def answers() -> bool:
        with contextlib.suppress(OSError, http.client.HTTPException):
            conn = http.client.HTTPConnection(control.link_address, control.http_port, timeout=5.0)
            with contextlib.closing(conn):
                conn.request("GET", "/healthz", headers={"Host": DOMAIN})
                return conn.getresponse().status == 200
        return False

    wait_until(answers, "the administration answers /healthz", READY_WITHIN_S)
