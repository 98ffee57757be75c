"""The Admin API without gunicorn: calls as an existing client sends them, a control socket that remembers, a caller."""

from __future__ import annotations

import json
from typing import Any

import falcon
import falcon.testing

from spokes.admin.context import EVERY_SCOPE, Admin, Caller, CallerKind, Role
from spokes.control import Control
from spokes.errors import NoServerError

HEADERS = {"Content-Type": "application/json", "Accept": "application/json"}
V1 = "/api/admin/v1.0"
OWN = "/api/admin/v1.1"
ADMINISTRATOR = Caller(
    kind=CallerKind.KEY, uid="a" * 32, name="test key", role=Role.ADMIN, scopes=EVERY_SCOPE, address="198.51.100.7",
    checked=False,                       # no store knows this key
)


class FakeControl(Control):
    """Answers from `answers` by operation, remembers what was asked; `gone` plays a server that is not there."""

    def __init__(self, **answers: Any) -> None:
        self.answers: dict[str, Any] = {"changed": {"refused_ports": []}, "live": {"tunnels": {}}, **answers}
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.gone = False

    def call(self, op: str, **args: Any) -> Any:
        if self.gone:
            raise NoServerError("no server runs here")
        self.calls.append((op, args))
        return self.answers.get(op, {})

    def called(self, op: str) -> list[dict[str, Any]]:
        """The arguments of every call of this operation."""
        return [args for name, args in self.calls if name == op]


class CallerSwitch:
    """Stands where sessions are checked: everybody is `caller`."""

    def __init__(self, caller: Caller = ADMINISTRATOR) -> None:
        self.caller = caller

    def __call__(self, admin: Admin, req: falcon.Request) -> Caller:
        return self.caller


class Api:
    """A client: paths below v1.0 unless they begin with a slash."""

    def __init__(self, app: Any) -> None:
        self.client = falcon.testing.TestClient(app)
        self.headers = dict(HEADERS)

    def get(self, path: str, *, query: str = "", headers: dict[str, str] | None = None) -> falcon.testing.Result:
        """As clients send it: with a body that nobody reads."""
        return self._send("GET", path, b"null\n", headers, query)

    def post(self, path: str, body: Any = None, *, headers: dict[str, str] | None = None) -> falcon.testing.Result:
        data = body if isinstance(body, bytes) else (json.dumps(body, indent="\t") + "\n").encode()
        return self._send("POST", path, data, headers, "")

    def _send(
        self, method: str, path: str, data: bytes, headers: dict[str, str] | None, query: str
    ) -> falcon.testing.Result:
        full = path if path.startswith("/") else f"{V1}/{path}"
        result = self.client.simulate_request(
            method, full, body=data, headers={**self.headers, **(headers or {})}, query_string=query
        )
        check_envelope(result)
        return result


def check_envelope(result: falcon.testing.Result) -> None:
    """What holds for every answer of an API call, whatever it says."""
    if not result.headers["content-type"].startswith("application/json"):
        return
    assert int(result.headers["content-length"]) == len(result.content)
    answer = result.json
    assert isinstance(answer, dict)
    assert isinstance(answer["status"], bool)
    assert isinstance(answer["error"], str)
    assert answer["status"] == (result.status_code == 200)
    assert answer["status"] == (answer["error"] == "")
    assert "%" not in answer["error"]
    check_no_null_elements(answer)


def check_no_null_elements(value: Any) -> None:
    if isinstance(value, dict):
        for item in value.values():
            check_no_null_elements(item)
    elif isinstance(value, list):
        assert None not in value
        for item in value:
            check_no_null_elements(item)
