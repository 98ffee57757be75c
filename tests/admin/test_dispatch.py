from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
import pytest

from spokes.admin.app import create_app
from spokes.admin.context import Caller, Role, Scope
from spokes.admin.routing import BODY_BYTES_MAX, Route
from spokes.admin.schema.envelope import Answer, Part, Request
from spokes.errors import NotFoundError, StoreError
from spokes.ids import ZERO_UID
from spokes.wire.api_types import Count, PortNumber, Uid
from tests.support.admin import ADMINISTRATOR, HEADERS, Api

UID = "3b1f0c5d7e9a42868fd0c1b2a3948576"
OTHER_SITES = "requests of other sites are refused"


class Item(Part):
    port: PortNumber = 0


class Echo(Request):
    user_id: Uid = msgspec.field(name="userID", default=ZERO_UID)
    active: bool = True
    count: Count = 0
    items: tuple[Item, ...] = ()
    names: tuple[str, ...] = ()


class EchoAnswer(Answer):
    seen: dict[str, Any] = msgspec.field(default_factory=dict)
    uid: str = ""


class Details(Request):
    details: bool = False


def echo(admin, caller, body: Echo) -> EchoAnswer:
    return EchoAnswer(seen=msgspec.to_builtins(body))


def look(admin, caller, body: None, *, tunnel_uid: str) -> EchoAnswer:
    assert body is None
    return EchoAnswer(uid=tunnel_uid)


def switch(admin, caller, body: None, *, query: Details) -> EchoAnswer:
    return EchoAnswer(seen={"details": query.details})


def missing(admin, caller, body: None) -> Answer:
    raise NotFoundError("unknown 100% thing")


def away(admin, caller, body: None) -> Answer:
    raise StoreError("the disk is full (/x)", hint="free some space")


def broken(admin, caller, body: None) -> Answer:
    raise KeyError("a fault")


ROUTES = (
    Route("POST", "/api/admin/v1.0/echo", echo),
    Route("GET", "/api/admin/v1.0/look/{tunnel_uid}", look),
    Route("GET", "/api/admin/v1.0/switch", switch),
    Route("GET", "/api/admin/v1.0/missing", missing),
    Route("GET", "/api/admin/v1.0/away", away),
    Route("GET", "/api/admin/v1.0/broken", broken),
    Route("GET", "/api/admin/v1.0/own", missing, admin_only=True),
)


@pytest.fixture
def store_url(tmp_path):
    """One engine will do: nothing here asks the store."""
    return f"sqlite:///{tmp_path / 'spokes.db'}"


@pytest.fixture
def api(admin, caller) -> Api:
    return Api(create_app(admin, authenticate=caller, routes=ROUTES))


@pytest.mark.parametrize("body", [b"null\n", b"{", b"", b"\xff" * 100, b'{"tunnelID": 7}'])
def test_get_any_body_is_not_read(api, body):
    result = api.client.simulate_request("GET", f"/api/admin/v1.0/look/{UID}", body=body, headers=HEADERS)
    assert result.json == {"status": True, "error": "", "message": "", "seen": {}, "uid": UID}


def test_path_upper_case_uid_is_folded(api):
    assert api.get(f"look/{UID.upper()}").json["uid"] == UID


@pytest.mark.parametrize("uid", ["1", "3b1f0c5d-7e9a-4286-8fd0-c1b2a3948576", UID + "0", UID[:-1] + "g", UID + "\n"])
def test_path_malformed_uid_is_refused(api, uid):
    assert api.get(f"look/{uid}").status_code == 400


@pytest.mark.parametrize("path", ["/nothing", "/api/admin/v1.0", "/api/admin/v1.0/echo/", "/api/admin/v9/echo"])
def test_path_unknown_is_404_in_the_envelope(api, path):
    assert api.get(path).status_code == 404


@pytest.mark.parametrize("slashes", ["//", "///////"])
def test_path_leading_slashes_are_one(api, slashes):
    assert api.get(f"{slashes}api/admin/v1.0/look/{UID}").status_code == 200


def test_path_prefix_only_if_configured(api, admin, caller):
    path = f"/edge/spokes/api/admin/v1.0/look/{UID}"
    assert api.get(path).status_code == 404
    behind = Api(create_app(dataclasses.replace(admin, path_prefix="/edge/spokes"), authenticate=caller, routes=ROUTES))
    assert behind.get(path).status_code == 200
    assert behind.get("/" + path).status_code == 200
    assert behind.get(f"/api/admin/v1.0/look/{UID}").status_code == 200


@pytest.mark.filterwarnings("ignore::wsgiref.validate.WSGIWarning")
@pytest.mark.parametrize(
    "method", ["POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "CONNECT", "NONSENSE"]
)
def test_method_wrong_is_405_and_names_the_right_one(api, method):
    result = api.client.simulate_request(method, f"/api/admin/v1.0/look/{UID}", headers=HEADERS)
    assert result.status_code == 405
    assert result.headers["allow"] == "GET"
    assert method == "HEAD" or result.json["status"] is False


@pytest.mark.parametrize("value", ["", "text/plain", "application/x-www-form-urlencoded", "application/jsonp"])
def test_content_type_other_is_415(api, value):
    assert api.get(f"look/{UID}", headers={"Content-Type": value}).status_code == 415


@pytest.mark.parametrize("value", ["", "*/*", "text/html", "text/html, application/xml;q=0.9"])
def test_accept_without_json_is_406(api, value):
    assert api.get(f"look/{UID}", headers={"Accept": value}).status_code == 406


def test_header_missing_is_refused(api):
    for name, status in (("Content-Type", 415), ("Accept", 406)):
        headers = {key: value for key, value in HEADERS.items() if key != name}
        result = api.client.simulate_get(f"/api/admin/v1.0/look/{UID}", headers=headers)
        assert result.status_code == status
        assert result.json["status"] is False


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "application/json; charset=utf-8"},
        {"Accept": "text/html, Application/JSON;q=0.5"},
        {"Accept": "application/json, text/plain, */*"},
        {"Origin": "https://falconframework.org", "X-Forwarded-Proto": "https"},
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
    ],
)
def test_header_with_parameters_or_of_this_site_passes(api, headers):
    assert api.get(f"look/{UID}", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://tenant.falconframework.org"},
        {"Origin": "null"},
        {"Origin": "https://falconframework.org:8443"},
        {"Origin": "https://["},
        {"Origin": "http://falconframework.org", "X-Forwarded-Proto": "https"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": ""},
    ],
)
def test_origin_of_other_sites_is_403(api, headers):
    result = api.get(f"look/{UID}", headers=headers)
    assert (result.status_code, result.json["error"]) == (403, OTHER_SITES)


def test_session_missing_is_401_before_the_body(api, caller):
    caller.caller = Caller()
    assert api.post("echo", b"{").status_code == 401


def test_scope_missing_is_403(api, caller):
    caller.caller = dataclasses.replace(ADMINISTRATOR, scopes=frozenset((Scope.READ,)))
    assert api.post("echo", {}).status_code == 403
    assert api.get(f"look/{UID}").status_code == 200


def test_admin_route_basic_caller_is_403(api, caller):
    caller.caller = dataclasses.replace(ADMINISTRATOR, role=Role.BASIC, user_uid=UID)
    assert api.get("own").status_code == 403


def test_body_null_is_an_empty_object(api):
    assert api.post("echo", None).json["seen"] == {
        "userID": ZERO_UID, "active": True, "count": 0, "items": [], "names": [],
    }


def test_body_keys_of_any_case_and_nulls(api):
    body = {
        "USERid": UID.upper(), "Active": False, "coUNT": None, "unknown": {"x": 1},
        "items": [None, {"PORT": 7}, {"port": None}], "Names": None,
    }
    assert api.post("echo", body).json["seen"] == {
        "userID": UID, "active": False, "count": 0, "items": [{"port": 7}, {"port": 0}], "names": [],
    }


def test_body_empty_uid_is_zero(api):
    assert api.post("echo", {"userID": ""}).json["seen"]["userID"] == ZERO_UID


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[", b"[]", b'"x"', b"7", b"true", b"{} {}", b"{}x", b"\xff\xfe", b"[" * 100_000, b'{"a":1e999}'],
)
def test_body_broken_is_400(api, body):
    assert api.post("echo", body).status_code == 400


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({"count": 12.0}, "count"),
        ({"count": "12"}, "count"),
        ({"count": True}, "count"),
        ({"count": -1}, "count"),
        ({"count": 2**63}, "count"),
        ({"count": 10**400}, ""),
        ({"active": 1}, "active"),
        ({"active": "true"}, "active"),
        ({"userID": 1}, "userID"),
        ({"userID": "3b1f0c5d-7e9a-4286-8fd0-c1b2a3948576"}, "userID"),
        ({"userID": UID + "\n"}, "userID"),
        ({"items": {}}, "items"),
        ({"items": [7]}, "items[0]"),
        ({"items": [{"port": 65536}]}, "items[0].port"),
        ({"names": [7]}, "names[0]"),
        ({"names": "x"}, "names"),
    ],
)
def test_body_of_the_wrong_shape_is_400_and_names_the_field(api, body, where):
    result = api.post("echo", body)
    assert result.status_code == 400
    assert result.json["error"].startswith(where)


def test_body_of_very_many_values_is_413_before_they_are_made(api):
    result = api.post("echo", b'{"x": [' + b",".join([b"{}"] * 60_000) + b"]}")
    assert (result.status_code, "values" in result.json["error"]) == (413, True)


def test_body_too_large_is_413(api):
    assert api.post("echo", b" " * (BODY_BYTES_MAX + 1)).status_code == 413
    assert api.post("echo", b" " * (BODY_BYTES_MAX - 2) + b"{}").status_code == 200


@pytest.mark.parametrize(
    ("query", "seen"), [("", False), ("details=true", True), ("details=false", False), ("x=1", False)]
)
def test_query_switch(api, query, seen):
    assert api.get("switch", query=query).json["seen"] == {"details": seen}


def test_query_of_the_wrong_type_is_400(api):
    result = api.get("switch", query="details=perhaps")
    assert (result.status_code, result.json["error"][:8]) == (400, "details:")


def test_error_text_holds_no_percent_sign(api):
    result = api.get("missing")
    assert result.status_code == 404
    assert result.json == {"status": False, "error": "unknown 100 percent  thing", "code": "SPK-NOT-FOUND"}


def test_store_away_is_503_and_tells_the_log_alone_where_it_lies(api, caplog):
    result = api.get("away")
    assert result.status_code == 503
    assert result.json["error"] == "the server's store cannot be used now; its log says why"
    assert "the disk is full (/x)" in caplog.records[-1].error


def test_fault_is_500_and_says_nothing_of_it(api, caplog):
    result = api.get("broken")
    assert (result.status_code, result.json["code"]) == (500, "SPK-INTERNAL")
    assert "KeyError" not in result.text
    assert "handler failed" in caplog.text


def test_answers_are_never_kept(api):
    for result in (api.get(f"look/{UID}"), api.get("missing")):
        assert result.headers["cache-control"] == "no-store"
        assert result.headers["x-content-type-options"] == "nosniff"
