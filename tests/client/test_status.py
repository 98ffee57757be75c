"""What the running client shows, drawn for real into a string."""

import asyncio
import io
import json

import pytest
from rich.console import Console as RichConsole

import spokes.client.health_reports
from spokes._fastpath.engine import FAULT_CODES, LinkDown
from spokes.client.app import App
from spokes.client.configured_rules import ConfiguredRules
from spokes.client.endpoint import Endpoint
from spokes.client.reconnect import Backoff
from spokes.client.status import LiveConsole, PlainConsole, status_document
from spokes.client.tables import datagrams_text, draw_table
from spokes.wire.messages import Address, Fault
from tests.client.fake_engine import HOSTNAME, OUTCOMES
from tests.support.eventually import eventually


@pytest.fixture
def rules_path(config_path):
    document = json.loads(config_path.read_text())
    document["https"] = [{"domain": "a.example", "port": 8080}, {"domain": "taken.example", "port": 1}]
    document["ports"] = [{"port": 22000, "dstPort": 22}]
    config_path.write_text(json.dumps(document))
    return config_path


def make_app(engine, path, console):
    return App(
        engine,
        endpoint=Endpoint(host="127.0.0.1", port=8443),
        key="k" * 64,
        rules=ConfiguredRules(path),
        console=console,
        make_backoff=lambda: Backoff(base_s=0.001, cap_s=0.001),
    )


async def run_until(app, condition):
    serving = asyncio.create_task(app.run())
    try:
        await eventually(condition)
    finally:
        app.stop(drain=False)
        await asyncio.gather(serving, return_exceptions=True)


async def test_plain_console_prints_lines_with_state_and_faults(engine, rules_path):
    engine.server.faults["taken.example"] = Fault(code="SPK-TAKEN", message="held by another tunnel")
    out = io.StringIO()
    console = PlainConsole(out)
    app = make_app(engine, rules_path, console)
    await run_until(app, lambda: "Running TCP services:" in out.getvalue())
    lines = out.getvalue().splitlines()
    assert lines[0] == "Connecting..."
    assert any(line.startswith("a.example") and line.endswith("running") for line in lines)
    assert any(line.startswith("taken.example") and line.endswith("[SPK-TAKEN]") for line in lines)
    assert any("22000" in line for line in lines)


@pytest.fixture
def failing_site(monkeypatch):
    """a.example's upstream refuses; asked all the time."""
    monkeypatch.setattr(spokes.client.health_reports, "CHECK_INTERVAL_S", 0.001)
    counts = [0] * len(FAULT_CODES)
    counts[1] = 3
    monkeypatch.setitem(OUTCOMES, "localhost:8080", (1, 1_790_000_000.0, counts))


async def test_service_that_fails_is_shown_as_failing_and_told_to_the_server(engine, rules_path, failing_site):
    out = io.StringIO()
    console = PlainConsole(out)
    app = make_app(engine, rules_path, console)
    await run_until(app, lambda: engine.server.healths)
    assert "Service a.example fails: localhost:8080 refused the connection [SPK-UPSTREAM-REFUSED]" in out.getvalue()
    (told,) = engine.server.healths
    assert [(one.domain, one.code) for one in told.failing] == [("a.example", "SPK-UPSTREAM-REFUSED")]
    (shown,) = status_document(app)["failing"]
    assert (shown["domain"], shown["count"], shown["at"]) == ("a.example", 3, 1_790_000_000.0)
    (line,) = [line for line in console._tables(app).splitlines() if line.startswith("a.example")]
    assert "failing: refused the connection, 3 times" in line and "running" not in line


async def test_service_that_answers_again_is_told_once(engine, rules_path, failing_site):
    out = io.StringIO()
    console = PlainConsole(out)
    app = make_app(engine, rules_path, console)

    def mended():
        if engine.server.healths:
            OUTCOMES["localhost:8080"] = (0, 1_790_000_001.0, OUTCOMES["localhost:8080"][2])
        return len(engine.server.healths) == 2

    await run_until(app, mended)
    assert engine.server.healths[1].failing == ()
    assert out.getvalue().count("Service a.example answers again") == 1


async def test_address_to_show_is_the_servers_choice_and_follows_it(engine, rules_path):
    out = io.StringIO()
    http, https = engine.server.urls
    app = make_app(engine, rules_path, PlainConsole(out))
    running = asyncio.create_task(run_until(app, lambda: f"Address: {https}" in out.getvalue()))
    await eventually(lambda: app.state == "online" and f"Address: {http}" in out.getvalue())
    assert app.public_url() == status_document(app)["url"] == http
    engine.push(engine.links[0], Address(url=https))
    await running
    assert out.getvalue().count("Address: ") == 2
    assert status_document(app)["url"] == https


async def test_plain_console_server_away_says_connecting_once(engine, rules_path):
    engine.refused = {"127.0.0.1": (LinkDown.SYSTEM, b"Connection refused\x1b[2J")}
    out = io.StringIO()
    console = PlainConsole(out)
    app = make_app(engine, rules_path, console)
    await run_until(app, lambda: out.getvalue().count("Not connected") > 3)
    assert out.getvalue().count("Connecting...") == 1
    assert "\x1b" not in out.getvalue()


async def test_live_console_draws_the_block(engine, rules_path):
    out = io.StringIO()
    console = LiveConsole(RichConsole(file=out, force_terminal=True, width=120))
    app = make_app(engine, rules_path, console)
    await run_until(app, lambda: "online" in out.getvalue() and "1.5 ms" in out.getvalue())
    shown = out.getvalue()
    for words in ("Connecting...", "Running HTTP services:", "a.example", "localhost:22", "Round trip", "Requests"):
        assert words in shown
    assert "k" * 64 not in shown


async def test_live_console_shows_the_last_errors(engine, rules_path):
    engine.refused = {"127.0.0.1": (LinkDown.SYSTEM, b"Connection refused")}
    out = io.StringIO()
    console = LiveConsole(RichConsole(file=out, force_terminal=True, width=160))
    app = make_app(engine, rules_path, console)
    await run_until(app, lambda: "Connection refused" in out.getvalue())
    assert "SPK-UNREACHABLE" in out.getvalue()


async def test_status_document_is_plain_json_without_secrets(engine, rules_path):
    console = PlainConsole(io.StringIO())
    app = make_app(engine, rules_path, console)
    await run_until(app, lambda: app.state == "online")
    text = json.dumps(status_document(app))
    assert json.loads(text)["hostname"] == HOSTNAME
    assert json.loads(text)["datagrams"] == {"in": 3, "out": 5, "dropped": 2}
    assert "k" * 64 not in text
    assert "s" * 32 not in text


def test_datagrams_text_names_all_three():
    figures = {"in": 3, "out": 5, "dropped": 2}
    assert datagrams_text(figures) == "5 to services, 3 from them, 2 dropped"


def test_draw_table_cells_cannot_break_it():
    lines = draw_table(("A", "B"), [["x\ny", "\x1b[31m"]]).splitlines()
    assert len(lines) == 3
    assert all(line.count("|") + line.count("+") == 1 for line in lines)


async def test_status_document_names_what_runs_all_the_time(engine, rules_path):
    app = make_app(engine, rules_path, PlainConsole(io.StringIO()))
    await run_until(app, lambda: app.state == "online" and len(app.supervisor.figures()) == 9)
    tasks = json.loads(json.dumps(status_document(app)))["tasks"]
    assert {"session", "health", "network"} <= {task["name"] for task in tasks}
    assert not any(task["failures_total"] for task in tasks)
