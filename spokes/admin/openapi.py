"""The OpenAPI 3.1 description, made from the route table and from the structs that validate, so it cannot differ.

Served without a session: it holds nothing that the documentation does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import falcon
import msgspec

import spokes
from spokes.admin.dispatch import PLAIN_COOKIE, SECURE_COOKIE, Resource
from spokes.admin.routing import JSON, Route
from spokes.admin.schema.envelope import Answer, Failure
from spokes.wire.api_types import Uid
from spokes.wire.rules import LIMITS

_REF = "#/components/schemas/{name}"
_FAILURES = {
    400: "malformed body, parameter or id",
    401: "no live session, or a wrong key",
    403: "not allowed, or the system's own object",
    404: "there is no such object",
    405: "wrong method",
    406: "Accept does not name the media type",
    408: "the body did not arrive in time",
    409: "in conflict with what there is",
    413: "body too large",
    415: "Content-Type is not application/json",
    429: "too many failed logins, or a limit",
    500: "an error of the server",
    503: "the store or the server is away",
}
DIGITS = "in plain digits: neither 12.0 nor 1e3"
_ALWAYS = (400, 403, 405, 406, 415, 500, 503)
_WITH_BODY = (408, 413)


def describe(routes: Sequence[Route]) -> dict[str, Any]:
    """The whole document."""
    structs = {route.request for route in routes if route.request} | {route.query for route in routes if route.query}
    answers = {route.answer for route in routes} | {Failure}
    ordered = sorted(structs | answers, key=lambda struct: struct.__name__)
    schemas, components = msgspec.json.schema_components(ordered, ref_template=_REF)
    for struct in ordered:
        if issubclass(struct, Answer | Failure):         # what we send is always whole
            components[struct.__name__]["required"] = list(components[struct.__name__]["properties"])
    for struct in structs:
        _tell_digits(components[struct.__name__], components)
    refs = dict(zip(ordered, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, refs, components)
    for route in routes:
        if route.query is not None:
            components.pop(route.query.__name__, None)   # described parameter by parameter
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Spokes Admin API",
            "version": spokes.__version__,
            "description": (
                "Every call, GETs too, carries `Content-Type: application/json` and `Accept: application/json`. "
                "`status` in the body says whether it was done. Some GETs change state."
            ),
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "cookie": {"type": "apiKey", "in": "cookie", "name": SECURE_COOKIE, "description": "over TLS"},
                "plainCookie": {"type": "apiKey", "in": "cookie", "name": PLAIN_COOKIE, "description": "without TLS"},
                "key": {"type": "http", "scheme": "bearer", "description": "an API key"},
            },
        },
    }


def _tell_digits(schema: Any, components: dict[str, Any]) -> None:
    """JSON Schema takes 3504.0 for an integer, and this API does not: where one is asked for, it says so."""
    if isinstance(schema, list):
        for part in schema:
            _tell_digits(part, components)
    elif isinstance(schema, dict):
        name = str(schema.get("$ref", "")).rpartition("/")[2]
        if name:
            _tell_digits(components[name], components)
        elif schema.get("type") == "object":
            for member, part in schema["properties"].items():
                _tell_digits(part, components)
                if (bounds := LIMITS.get(member)) is not None:  # read whatever it is, so that it costs its rule alone
                    part |= {"minimum": 0, "maximum": bounds.high, "anyOf": [{"const": 0}, {"minimum": bounds.low}]}
        elif schema.get("type") == "integer":
            if not schema.get("description", "").endswith(DIGITS):
                schema["description"] = "; ".join(filter(None, (schema.get("description"), DIGITS)))
        else:
            for part in schema.values():
                _tell_digits(part, components)


def _operation(route: Route, refs: dict[type[Any], Any], components: dict[str, Any]) -> dict[str, Any]:
    statuses = {*_ALWAYS, *route.statuses}
    if route.request is not None:
        statuses.update(_WITH_BODY)
    if not route.public:
        statuses.update((401, 429))
    if route.path_params:
        statuses.add(404)
    operation: dict[str, Any] = {
        "operationId": _operation_id(route),
        "summary": route.summary,
        "tags": [route.path.split("/")[4]],
        "parameters": [_path_param(name) for name in route.path_params] + _query_params(route, components),
        "responses": {
            "200": {
                "description": "done",
                "content": {
                    media_type: {"schema": refs[route.answer] if media_type == JSON else {"type": "string"}}
                    for media_type in route.media_types
                },
            },
            **{str(status): _failure(status, refs) for status in sorted(statuses)},
        },
        "security": [] if route.public else [{"cookie": []}, {"plainCookie": []}, {"key": []}],
    }
    if route.scope is not None and not route.public:
        operation["x-scope"] = route.scope.value
    if route.request is not None:
        operation["requestBody"] = {"required": True, "content": {JSON: {"schema": refs[route.request]}}}
    return operation


def _operation_id(route: Route) -> str:
    version, *words = (part for part in route.path.split("/")[3:] if not part.startswith("{"))
    return "_".join([route.method.lower(), *words, version]).replace(".", "_").replace("-", "_")


def _path_param(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": msgspec.json.schema(Uid)}


def _query_params(route: Route, components: dict[str, Any]) -> list[dict[str, Any]]:
    if route.query is None:
        return []
    described = components[route.query.__name__]
    return [
        {"name": name, "in": "query", "required": name in described.get("required", ()), "schema": schema}
        for name, schema in described["properties"].items()
    ]


def _failure(status: int, refs: dict[type[Any], Any]) -> dict[str, Any]:
    return {"description": _FAILURES[status], "content": {JSON: {"schema": refs[Failure]}}}


class Description(Resource):
    """`/api/admin/openapi.json`; made when it is first asked for, because few processes ever are."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._routes = routes
        self._body = b""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        if not self._body:
            self._body = msgspec.json.encode(describe(self._routes))
        resp.content_type = JSON
        resp.data = self._body
