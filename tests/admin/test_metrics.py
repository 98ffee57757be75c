from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from spokes.admin.app import create_app, create_metrics_app
from spokes.admin.context import Role, Scope
from spokes.admin.metrics import POOL, WORKER, render_metrics
from spokes.model.api_keys import CreateApiKey
from tests.support.admin import ADMINISTRATOR, Api
from tests.support.operations import do

TUNNEL = "3b1f0c5d7e9a42868fd0c1b2a3948576"
SITE = "4c2f0c5d7e9a42868fd0c1b2a3948576"
STATS = {family.figure: number for number, family in enumerate(WORKER)}
FIGURES = {
    "version": "1.2.3", "started_at": 1_800_000_000.5,
    "workers": [{**STATS, "bytes_in": 2**53}, {**STATS, "bytes_in": 1}],
    "engine": {family.figure: 5 for family in POOL},
    "process": {
        "virtual_memory_bytes": 8192, "resident_memory_bytes": 4096, "cpu_seconds_total": 0.25, "open_fds": 9,
        "max_fds": 1024, "threads": 3,
    },
    "store": {"statements_total": 12, "change_seq": 3},
    "sessions": {"online": 1, "active": 2, "links": 4, "time": 0.0},
    "tunnels": {
        "busiest": [{
            "id": TUNNEL, "hostname": 'evil"\n\\.example.net', "online": True, "bytes_in": 1, "bytes_out": 2,
            "streams_open": 3,
        }],
        "others": {"count": 1, "bytes_in": 10, "bytes_out": 20, "streams_open": 30},
    },
    "services": {
        "busiest": [{
            "id": SITE, "tunnel_id": TUNNEL, "name": "shop.example.net", "bytes_in": 1, "bytes_out": 2, "conns": 4,
            "requests": 5, "streams_open": 3,
        }],
        "others": {"count": 0, "bytes_in": 0, "bytes_out": 0, "conns": 0, "requests": 0, "streams_open": 0},
    },
    "certificates": [{"names": ["tun.example.net", "*.tun.example.net"], "expires": 1_900_000_000.0}],
    "admin": {"starts_total": 1},
    "webhooks": {"delivered_total": 6, "failed_total": 2, "under_way": 1},
    "alerts": [{"kind": "disk", "severity": "critical", "count": 1}],
    "tasks": [
        {"name": "change log", "state": "running", "failures_total": 4, "last_error": "", "failed_at": 0.0},
        {"name": "e-mail", "state": "running", "failures_total": 0, "last_error": "", "failed_at": 0.0},
    ],
    "set_aside_total": 7,
}
BOARD = Path(__file__).parents[2] / "packaging" / "grafana" / "spokes.json"
OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"


def families() -> list[Metric]:
    """As the strict parser reads them."""
    return list(text_string_to_metric_families(render_metrics(FIGURES).decode()))


def sample_names() -> set[str]:
    return {sample.name for family in families() for sample in family.samples}


def test_render_is_what_the_parser_of_prometheus_reads_with_every_series_once():
    series = [(sample.name, *sorted(sample.labels.items())) for family in families() for sample in family.samples]
    assert len(series) > 50
    assert len(series) == len(set(series))
    assert {family.type for family in families()} == {"counter", "gauge"}
    assert all(family.documentation for family in families())
    assert all(name.startswith("spokes_") for name in sample_names())


def test_render_values_and_labels():
    values = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in families() for sample in family.samples
    }
    assert values["spokes_received_bytes_total", "0"] == 2**53
    assert values["spokes_received_bytes_total", "1"] == 1
    assert values["spokes_tunnel_received_bytes_total", TUNNEL, 'evil"\n\\.example.net'] == 1
    assert values["spokes_tunnel_streams_open", "", "others"] == 30
    assert values["spokes_service_conns_total", TUNNEL, SITE, "shop.example.net"] == 4
    assert values["spokes_webhook_attempts_total", "failed"] == 2
    assert values["spokes_alerts_open", "critical", "disk"] == 1
    assert values["spokes_task_failures_total", "change log"] == 4
    assert values["spokes_changes_set_aside_total",] == 7


def test_grafana_board_asks_for_nothing_that_does_not_exist():
    asked = set(re.findall(r"\bspokes_\w+", BOARD.read_text()))
    assert len(asked) > 10
    assert asked - sample_names() == set()


def test_operations_md_lists_every_metric():
    listed = set(re.findall(r"^\| `(spokes_\w+)`", OPERATIONS.read_text(), flags=re.MULTILINE))
    assert listed == sample_names()


@pytest.fixture
def control(control):
    control.answers["metrics"] = FIGURES
    return control


def test_metrics_take_a_key_and_no_content_type(admin, control, store):
    _, value = do(store, CreateApiKey("scraper", scopes=("read",)))
    client = Api(create_app(admin)).client
    result = client.simulate_get("/metrics", headers={"Authorization": f"Bearer {value}"})
    assert (result.status_code, result.content) == (200, render_metrics(FIGURES))
    assert result.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert client.simulate_get("/metrics").status_code == 401


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"login_uid": TUNNEL}, 401),
        ({"scopes": frozenset((Scope.WRITE,))}, 403),
        ({"role": Role.BASIC, "user_uid": TUNNEL}, 403),
    ],
)
def test_metrics_refuse_cookies_other_scopes_and_basic_callers(api, caller, control, changes, status):
    caller.caller = dataclasses.replace(ADMINISTRATOR, **changes)
    assert api.get("/metrics").status_code == status


def test_metrics_server_gone_is_503(api, control):
    control.gone = True
    assert api.get("/metrics").status_code == 503


def test_metrics_address_needs_no_key_and_serves_nothing_else(admin, control, store):
    client = Api(create_metrics_app(admin)).client
    result = client.simulate_get("/metrics")
    assert (result.status_code, result.content) == (200, render_metrics(FIGURES))
    for path in ("/", "/healthz", "/api/admin/v1.0/info", "/api/admin/openapi.json"):
        assert client.simulate_get(path).status_code == 404
    assert client.simulate_post("/metrics").status_code == 405
