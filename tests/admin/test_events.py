from __future__ import annotations

import csv
import io
import json

import pytest

from tests.support.admin import OWN

HOSTILE = '=HYPERLINK("http://evil")'


def test_events_are_listed_newest_first_by_page_and_filter(api):
    for number in range(5):
        api.post("token/registration/create", {"description": f"token {number}"})
    user = api.post("user/create", {}).json["user"]
    events = api.get(f"{OWN}/event/list").json["events"]
    assert [event["action"] for event in events] == ["user.create"] + ["token.create"] * 5
    assert events[0]["objectID"] == user["id"]
    assert events[1]["after"]["description"] == "token 4"
    page = api.get(f"{OWN}/event/list", query=f"limit=2&before={events[1]['seq']}").json["events"]
    assert page == events[2:4]
    assert api.get(f"{OWN}/event/list", query="action=user").json["events"] == events[:1]
    assert api.get(f"{OWN}/event/list", query=f"object={user['id'].upper()}").json["events"] == events[:1]
    assert api.get(f"{OWN}/event/list", query=f"actor={'b' * 32}").json["events"] == []


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", "before=-1", f"before={2**63}", "actor=1"])
def test_events_bad_filter_is_400(api, query):
    assert api.get(f"{OWN}/event/list", query=query).status_code == 400


@pytest.mark.parametrize("action", ["%", "_", "user%25", "'", "%00", "user.%", "\\"])
def test_events_filter_characters_mean_nothing_else(api, action):
    api.post("user/create", {})
    result = api.get(f"{OWN}/event/list", query=f"action={action}")
    assert (result.status_code, result.json["events"]) == (200, [])


def test_events_verify(api):
    api.post("user/create", {})
    answer = api.get(f"{OWN}/event/verify").json
    assert (answer["whole"], answer["brokenAt"]) == (True, 0)


def test_events_export_both_ways_says_the_same(api):
    api.post("user/create", {"fullname": HOSTILE})
    api.post("token/registration/create", {"description": "x"})
    lines = api.client.simulate_get(
        f"{OWN}/event/export/json-lines", headers={**api.headers, "Accept": "application/x-ndjson"}
    )
    assert lines.headers["content-type"] == "application/x-ndjson"
    events = [json.loads(line) for line in lines.text.splitlines()]
    table = api.client.simulate_get(f"{OWN}/event/export/csv", headers={**api.headers, "Accept": "text/csv"})
    rows = list(csv.DictReader(io.StringIO(table.text)))
    assert [(row["seq"], row["action"], row["hash"]) for row in rows] == [
        (str(event["seq"]), event["action"], event["hash"]) for event in events
    ]
    assert not [cell for row in rows for cell in row.values() if cell.startswith(("=", "+", "-", "@"))]


def test_events_export_needs_its_media_type(api):
    assert api.get(f"{OWN}/event/export/csv").status_code == 406


def test_alert_is_listed_and_acknowledged(api, store):
    store.alerts.open("disk", "/", "critical", "full")
    store.alerts.open("certificate", "a.example.net", "warning", "ends soon")
    store.alerts.resolve("certificate", "a.example.net")
    alerts = api.get(f"{OWN}/alert/list").json["alerts"]
    assert {alert["kind"] for alert in alerts} == {"disk", "certificate"}
    standing, = api.get(f"{OWN}/alert/list", query="open=true").json["alerts"]
    assert (standing["severity"], standing["acknowledged"]) == ("critical", "0001-01-01T00:00:00Z")
    assert api.get("info").json["alerts"] == 2
    seen = api.post(f"{OWN}/alert/acknowledge", {"alertID": standing["id"]}).json["alert"]
    assert seen["acknowledged"] > "2020"
    assert api.get("info").json["alerts"] == 1
    assert api.post(f"{OWN}/alert/acknowledge", {"alertID": "f" * 32}).status_code == 404
