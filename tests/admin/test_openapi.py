"""The description, and the app held against it by schemathesis: no server errors, nothing undeclared."""

from __future__ import annotations

import json
import re

import hypothesis
import jsonschema_rs
import pytest
import schemathesis
from schemathesis.checks import CHECKS

from spokes.admin.app import create_app
from spokes.admin.context import Admin
from spokes.admin.decode import decode_body
from spokes.admin.openapi import describe
from spokes.admin.routes import ROUTES
from spokes.admin.schema.people import PasswordRequest
from spokes.admin.schema.tunnels import CreateTunnelRequest
from spokes.admin.schema.users import DomainsRequest, UserRequest
from spokes.errors import RequestError
from spokes.model.api_keys import CreateApiKey
from spokes.model.tokens import CreateToken
from spokes.model.tunnels import CreateTunnel
from spokes.model.users import CreateUser
from spokes.store import Store
from spokes.wire.rules import LIMITS
from tests.support.admin import HEADERS, Api, FakeControl
from tests.support.operations import do

EXAMPLE_COUNT = 10                       # for each operation

# What a value means is not all in its schema (a host name, an e-mail address), so a request that fits may be refused
# with 400; and one that does not fit may be read more kindly than the schema says (null for an empty list). Wrong keys
# are slowed down with 429, which `ignored_auth` does not know of: the test behind it looks at every route instead.
LEFT_OUT = ("positive_data_acceptance", "negative_data_rejection", "ignored_auth")


@pytest.fixture(scope="module")
def described(tmp_path_factory):
    """The description of an app with some objects in it, and a key for it."""
    store = Store.open(f"sqlite:///{tmp_path_factory.mktemp('openapi') / 'spokes.db'}")
    _, key = do(store, CreateApiKey("property tests", scopes=("read", "write", "replication")))
    user = do(store, CreateUser(email="mara@example.org"))
    do(store, CreateTunnel(name="desk", domain="tun.example.net", user_uid=user.uid))
    do(store, CreateToken("offices"))
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


def test_description_tells_the_bounds_of_a_rules_limits():
    schemas = describe(ROUTES)["components"]["schemas"]
    bounds = {
        member: (shape["minimum"], shape["maximum"])
        for schema in schemas.values()
        for member, shape in schema.get("properties", {}).items()
        if member in LIMITS
    }
    assert bounds == {member: (0, LIMITS[member].high) for member in LIMITS}


def test_description_references_are_all_there():
    document = describe(ROUTES)
    referenced = set(re.findall(r"#/components/schemas/(\w+)", str(document)))
    assert referenced <= set(document["components"]["schemas"])


def _resolved(schema, components):
    name = schema.get("$ref", "").rpartition("/")[2]
    schema = components[name] if name else schema
    parts = [part for part in schema.get("anyOf", ()) if part.get("type") != "null" and "type" not in schema]
    return _resolved(parts[0], components) if parts else schema


def _smallest(schema, components):
    """A value that fits."""
    schema = _resolved(schema, components)
    if "enum" in schema:
        return schema["enum"][0]
    match schema["type"]:
        case "object":
            return {name: _smallest(schema["properties"][name], components) for name in schema.get("required", ())}
        case "array":
            return [_smallest(schema["items"], components)] * schema.get("minItems", 0)
        case "integer":
            return max(0, schema.get("minimum", 0))
        case "boolean":
            return False
    if schema.get("format") == "uid":
        return "a" * 32
    is_domain = schema.get("pattern", "").startswith(r"^(\*\.)?")
    return "a.example" if is_domain else "a" * max(10, schema.get("minLength", 0))


def _at_limits(schema, components):
    """(value, whether it fits) at each limit of a schema and one beyond, deep down."""
    schema = _resolved(schema, components)
    kind = schema.get("type")
    if kind == "integer":
        low, high = schema["minimum"], schema["maximum"]
        yield from ((low, True), (high, True), (low - 1, False), (high + 1, False))
        for part in schema.get("anyOf", ()):
            if part.get("minimum", 1) > 1:
                yield from ((part["minimum"], True), (part["minimum"] - 1, False))
    elif kind == "string" and "enum" not in schema and schema.get("format") != "uid":
        if "pattern" not in schema:
            yield from (("a" * schema["maxLength"], True), ("a" * (schema["maxLength"] + 1), False))
        if schema.get("minLength"):
            yield "a" * (schema["minLength"] - 1), False
    elif kind == "array":
        one = _smallest(schema["items"], components)
        yield from (([one] * schema["maxItems"], True), ([one] * (schema["maxItems"] + 1), False))
        if schema.get("minItems"):
            yield [one] * (schema["minItems"] - 1), False
        for value, fits in _at_limits(schema["items"], components):
            yield [value] * max(1, schema.get("minItems", 0)), fits
    elif kind == "object":
        for name, member in schema["properties"].items():
            for value, fits in _at_limits(member, components):
                yield {**_smallest(schema, components), name: value}, fits


# Below the place where a body is read: what a rule or a password is refused for, in words of its own.
CHECKED_LATER = {("UpdateSitesRequest", "sites"), ("UpdatePortsRequest", "ports"), ("PasswordRequest", "password")}


REQUESTS = sorted({route.request for route in ROUTES if route.request}, key=lambda struct: struct.__name__)


@pytest.mark.parametrize("struct", REQUESTS)
def test_request_at_each_limit_and_one_beyond_is_taken_as_its_schema_says(struct):
    components = describe(ROUTES)["components"]["schemas"]
    schema = components[struct.__name__]
    validator = jsonschema_rs.validator_for({**schema, "components": {"schemas": components}})
    for body, fits in _at_limits(schema, components):
        assert validator.is_valid(body) is fits, _shown(body)
        try:
            decode_body(json.dumps(body).encode(), struct)
            taken = True
        except RequestError:
            taken = False
        if fits or not {(struct.__name__, name) for name in body} & CHECKED_LATER:
            assert taken is fits, _shown(body)


def _shown(body):
    return json.dumps(body)[:300]


def test_every_limit_of_a_request_is_told():
    """No text, list or number without one, and each number says how it is written."""
    components = describe(ROUTES)["components"]["schemas"]

    def look(schema, where, seen=()):
        name = schema.get("$ref", "").rpartition("/")[2]
        if name in seen:
            return
        schema, seen = _resolved(schema, components), (*seen, name)
        match schema.get("type"):
            case "string" if "enum" not in schema and "pattern" not in schema:
                assert "maxLength" in schema, where
            case "integer":
                assert {"minimum", "maximum"} <= schema.keys(), where
                assert "12.0" in schema["description"], where
            case "array":
                assert "maxItems" in schema, where
                look(schema["items"], f"{where}[]", seen)
            case "object":
                for member, part in schema["properties"].items():
                    look(part, f"{where}.{member}", seen)

    for struct in REQUESTS:
        look(components[struct.__name__], struct.__name__)
    for path in describe(ROUTES)["paths"].values():
        for operation in path.values():
            for parameter in operation["parameters"]:
                look(parameter["schema"], f"{operation['operationId']} {parameter['name']}")


LABEL = "a" * 63
LONG = ".".join([LABEL] * 3)  # 191 bytes
VALUES = {
    "email": ["", "a@b", "a" * 253 + "@b", "a" * 254 + "@b", "a", "@b", "a@", "a b@c", "a@b@c", "a@b\x00"],
    "fullname": ["", "x" * 255, "x" * 256, "till \u2116 4", "a\x1fb", "a\x7fb", "a\u2028b"],
    "domain": [
        "a.example", "*.a.example", "", "*.", "a..b", "-a.example", "a-.example", "a b.example", "a.example:80",
        *(f"{LONG}.{'a' * 61}{dot}" for dot in ("", ".")), f"*.{LONG}.{'a' * 61}",
        f"{LONG}.{'a' * 62}", f"*.{LONG}.{'a' * 62}",
        f"{LABEL}.example", f"{LABEL}a.example", "b\u00fcro.example", "a_b.example", "a.*.example",
    ],
    "hostname": [
        "", "shop.tun.example.net", f"{LABEL}.tun.example.net", f"{LABEL}a.tun.example.net", "*.tun.example.net",
        "a..tun.example.net", "b\u00fcro2.tun.example.net",
    ],
    "password": ["a" * 9, "a" * 10, "a" * 512, "a" * 513],
}


@pytest.mark.parametrize(
    ("member", "value"), [(member, value) for member, values in VALUES.items() for value in values]
)
def test_value_that_means_something_is_taken_as_its_schema_says(api, store, member, value):
    user = do(store, CreateUser())
    calls = {
        "email": ("user/edit", UserRequest, {"userID": user.uid, "email": value}),
        "fullname": ("user/edit", UserRequest, {"userID": user.uid, "fullname": value}),
        "domain": ("user/domain/allow", DomainsRequest, {"userID": user.uid, "domains": [value]}),
        "hostname": ("user/tunnel/create", CreateTunnelRequest, {"name": "t", "hostname": value}),
        "password": ("/api/admin/v1.1/person/password", PasswordRequest, {"userID": user.uid, "password": value}),
    }
    path, struct, body = calls[member]
    components = describe(ROUTES)["components"]["schemas"]
    validator = jsonschema_rs.validator_for({**components[struct.__name__], "components": {"schemas": components}})
    answer = api.post(path, body)
    assert (answer.status_code == 200) is validator.is_valid(body), answer.text


def test_description_is_served_without_a_session(admin):
    result = Api(create_app(admin)).client.simulate_get("/api/admin/openapi.json")
    assert (result.status_code, result.json["openapi"]) == (200, "3.1.0")
