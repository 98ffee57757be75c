"""The API at a replica: what changes configuration goes to the master, and what only looks does not."""

import pytest

from spokes.model.operation import perform
from spokes.model.ports import AllocatePort
from spokes.model.tokens import CreateToken
from spokes.model.users import CreateUser
from spokes.store import PrincipalKind
from tests.admin.tunnel_cases import new_tunnel
from tests.support.admin import OWN
from tests.support.operations import do


@pytest.fixture
def forwarded(store):
    """What was handed over; it is performed all the same, by the same store."""
    calls = []

    def forward(principal, operation):
        calls.append((principal, operation))
        store.forward = None
        try:
            return perform(store, principal, operation)
        finally:
            store.forward = forward

    store.forward = forward
    return calls


def test_change_is_handed_over_with_who_asked(api, forwarded):
    answer = api.post("token/registration/create", {"description": "x", "active": True})
    assert answer.status_code == 200
    ((principal, operation),) = forwarded
    assert operation == CreateToken("x")
    assert (principal.kind, principal.role) == (PrincipalKind.KEY, "admin")


def test_look_is_answered_here(api, forwarded):
    assert api.get("token/registration/list").status_code == 200
    assert forwarded == []


def test_port_that_is_taken_here_is_the_masters_choice_all_the_same(api, store, control, forwarded, monkeypatch):
    tunnel = new_tunnel(store)
    forwarded.clear()
    monkeypatch.setattr(type(control), "is_refused_port", lambda self, port: True)
    answer = api.get(f"tunnel/traffic/tcp/allocate/{tunnel.uid}")
    assert answer.status_code == 200
    assert [type(operation) for _, operation in forwarded] == [AllocatePort]


def test_password_is_hashed_before_it_is_handed_over(api, forwarded, store):
    user = do(store, CreateUser(email="mara@example.org"))
    forwarded.clear()
    body = {"userID": user.uid, "password": "correct horse battery"}
    assert api.post(f"{OWN}/person/password", body).status_code == 200
    ((_, operation),) = forwarded
    assert operation.password_hash.startswith("$argon2id$")
