from __future__ import annotations

import dataclasses

import pytest

from spokes.admin.context import Role
from spokes.ids import is_secret
from tests.support.admin import ADMINISTRATOR

UNKNOWN = "f" * 32


def test_token_life(api, store, control):
    made = api.post("token/registration/create", {"description": "branch offices", "active": True}).json["token"]
    assert is_secret(made["value"])
    assert (made["description"], made["active"]) == ("branch offices", True)
    assert api.get("token/registration/list").json["tokens"] == [made]
    body = {"tokenID": made["id"].upper(), "description": "closed", "active": False}
    edited = api.post("token/registration/edit", body).json["token"]
    assert edited == {**made, "modified": edited["modified"], "description": "closed", "active": False}
    assert api.post("token/registration/delete", {"tokenID": made["id"]}).json["status"] is True
    assert api.get("token/registration/list").json["tokens"] == []
    assert len(control.called("changed")) == 3
    actions = [(event.action, event.actor_name, event.address) for event in store.audit.select()]
    assert actions == [(f"token.{verb}", "test key", "198.51.100.7") for verb in ("delete", "edit", "create")]
    assert made["value"] not in "".join(store.audit.export())


@pytest.mark.parametrize(
    ("call", "body", "status"),
    [
        ("edit", {"tokenID": UNKNOWN, "description": "x", "active": True}, 404),
        ("edit", {"tokenID": UNKNOWN, "description": "x"}, 400),
        ("edit", {"tokenID": UNKNOWN, "active": True}, 400),
        ("edit", {"description": "x", "active": True}, 400),
        ("delete", {"tokenID": UNKNOWN}, 404),
        ("delete", {"tokenID": None}, 400),
        ("delete", {"tokenID": ""}, 404),
        ("create", {"description": "a\u0000b"}, 400),
        ("create", {"description": "a\u202eb"}, 400),
        ("create", {"description": "x" * 256}, 400),
        ("create", {"description": "x", "active": 1}, 400),
    ],
)
def test_token_refusals(api, call, body, status):
    assert api.post(f"token/registration/{call}", body).status_code == status


def test_token_calls_basic_caller_is_refused(api, caller):
    caller.caller = dataclasses.replace(ADMINISTRATOR, role=Role.BASIC, user_uid=UNKNOWN)
    assert api.get("token/registration/list").status_code == 403
    assert api.post("token/registration/create", {}).status_code == 403
