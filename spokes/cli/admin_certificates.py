"""`spokes cert`: lists the certificates that visitors are shown, and the errors of those that they are not."""

from __future__ import annotations

import click

from spokes.cli.server_options import Settings, control_path, json_option, pass_settings, print_json, store_options
from spokes.cli.table import print_table, time_text
from spokes.control import call_control


@click.group(epilog="Example: spokes cert ls")
def cert() -> None:
    """Certificates for visitors: the server's own, and those of certs-extra."""


@cert.command("ls", epilog="Example: spokes cert ls --json | jq '.[] | select(.cause != \"\")'")
@json_option
@store_options
@pass_settings
def list_certificates(settings: Settings, as_json: bool) -> None:
    """List certificates with source, end and state; with cause and cure where something is wrong."""
    found = call_control(control_path(settings.load()), "certificates")
    if as_json:
        print_json(found)
        return
    rows = [
        [
            ", ".join(one["names"]) or "-", one["source"], time_text(one["expires"]) if one["expires"] else "-",
            one["state"], f"{one['cause']}; {one['hint']}" if one["hint"] else one["cause"] or "-",
        ]
        for one in found
    ]
    print_table(["Names", "Source", "Ends", "State", "Wrong"], rows)
