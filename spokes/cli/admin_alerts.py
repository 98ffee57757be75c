"""`spokes alerts`: lists and acknowledges alerts."""

from __future__ import annotations

import click

from spokes.admin.resources import events as event_calls
from spokes.admin.schema.events import AcknowledgeRequest, alert_object
from spokes.cli.admin_shell import moment, plain, print_result, reading, verb
from spokes.cli.server_options import Settings, print_json
from spokes.cli.table import print_table
from spokes.store.alerts import ALERT_COUNT_MAX


@click.group(epilog="Example: spokes alerts list --open")
def alerts() -> None:
    """Alerts: raised once by the server, resolved by themselves."""


@alerts.command("list", epilog="Example: spokes alerts list --open --json | jq '.alerts | length'")
@click.option("--open", "open_only", is_flag=True, help="Only those that stand.")
@click.option("--limit", type=click.IntRange(1, ALERT_COUNT_MAX), default=100, show_default=True, help="How many.")
@verb
def list_alerts(settings: Settings, open_only: bool, limit: int, as_json: bool) -> None:
    """List alerts, newest first."""
    with reading(settings) as shell:
        found = shell.store.alerts.select(open_only=open_only, limit=limit)
    if as_json:
        print_json({"alerts": [plain(alert_object(one)) for one in found]})
        return
    rows = [
        [
            one.uid, one.severity.value, one.kind, one.subject, moment(one.raised), moment(one.resolved),
            moment(one.acknowledged), one.text,
        ]
        for one in found
    ]
    print_table(["Id", "Severity", "Kind", "Subject", "Raised", "Resolved", "Seen", "Text"], rows)


@alerts.command("acknowledge", epilog="Example: spokes alerts acknowledge 3b1f0c5d7e9a42868fd0c1b2a3948576")
@click.argument("alert_id", metavar="ID")
@verb
def acknowledge(settings: Settings, alert_id: str, as_json: bool) -> None:
    """Note that somebody has seen an alert."""
    with reading(settings) as shell:
        request = AcknowledgeRequest(alert_uid=alert_id.lower())
        alert = event_calls.acknowledge_alert(shell.admin, shell.caller, request).alert
    print_result(alert, f"Alert {alert.id} is acknowledged", as_json=as_json)
