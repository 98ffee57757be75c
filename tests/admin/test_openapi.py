"""The description, and the app held against it by schemathesis: no server errors, nothing undeclared."""

from __future__ import annotations

import re

import hypothesis
import pytest
import schemathesis
from schemathesis.checks import CHECKS

from spokes.admin.app import create_app
from spokes.admin.context import Admin
from spokes.admin.openapi import describe
from spokes.admin.routes import ROUTES
from spokes.store import Store
from tests.support.admin import HEADERS, Api, FakeControl

EXAMPLE_COUNT = 10                       # for each operation

# What a value means is not all in its schema (a host name, an e-mail address), so a request that fits may be refused
# with 400; and one that does not fit may be read more kindly than the schema says (null for an empty list). Wrong keys
# are slowed down with 429, which `ignored_auth` does not know of: the test behind it looks at every route instead.
LEFT_OUT = ("positive_data_acceptance", "negative_data_rejection", "ignored_auth")


@pytest.fixture(scope="module")
def described(tmp_path_factory):
    """The description of an app with some objects in it, and a key for it."""
    store = Store.open(f"sqlite:///{tmp_path_factory.mktemp('openapi') / 'spokes.db'}")
    _, key = store.create_api_key("property tests", scopes=("read", "write", "replication"))
    user = store.create_user(email="mara@example.org")
    store.create_tunnel("desk", domain="tun.example.net", user_uid=user.uid)
    store.create_token("offices")
    admin = Admin(store=store, control=FakeControl(), domain="tun.example.net")
    yield schemathesis.openapi.from_wsgi("/api/admin/openapi.json", create_app(admin)), key
    store.close()


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_operation_any_request_is_answered_as_described(described, route):
    schema, key = described
    headers = {**HEADERS, "Accept": route.media_types[0], "Authorization": f"Bearer {key}"}

    @hypothesis.settings(
        max_examples=EXAMPLE_COUNT, deadline=None, derandomize=True, database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(case=schema[route.path][route.method].as_strategy())
    def check(case):
        case.call_and_validate(headers=headers, excluded_checks=CHECKS.get_by_names(LEFT_OUT))

    check()


@pytest.mark.parametrize("route", [route for route in ROUTES if not route.public], ids=lambda route: route.path)
def test_operation_without_a_session_is_401(described, route):
    schema, _ = described
    path = re.sub(r"{\w+}", "a" * 32, route.path)
    headers = {**HEADERS, "Accept": route.media_types[0]}
    result = Api(schema.app).client.simulate_request(route.method, path, headers=headers)
    assert (result.status_code, result.json["status"]) == (401, False)


def test_description_names_every_route_once():
    document = describe(ROUTES)
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    assert len(operations) == len(ROUTES)
    assert len({operation["operationId"] for operation in operations}) == len(ROUTES)
    assert [operation["operationId"] for operation in operations if not operation["summary"]] == []


def test_description_references_are_all_there():
    document = describe(ROUTES)
    referenced = set(re.findall(r"#/components/schemas/(\w+)", str(document)))
    assert referenced <= set(document["components"]["schemas"])


def test_description_is_served_without_a_session(admin):
    result = Api(create_app(admin)).client.simulate_get("/api/admin/openapi.json")
    assert (result.status_code, result.json["openapi"]) == (200, "3.1.0")
