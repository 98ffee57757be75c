"""`spokes`: run a server, and look after it.

Exit codes and the form of errors: entry.py. Every verb that prints facts has --json.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

import spokes
from spokes.cli.admin_verbs import AdminVerbs
from spokes.cli.check_config import check_config
from spokes.cli.entry import run_program
from spokes.cli.server_options import (
    Settings,
    config_option,
    control_path,
    json_option,
    pass_settings,
    print_json,
    server_options,
    size_text,
    store_options,
)
from spokes.cli.table import print_table, tasks_text, time_text
from spokes.control import call_control, standby_status
from spokes.errors import NoServerError
from spokes.log import setup_logging
from spokes.outlet import outlet_of


@click.group(cls=AdminVerbs, epilog="Example: spokes server --domain tun.example.net")
@config_option
@click.version_option(spokes.__version__, prog_name="spokes")
def main_group() -> None:
    """Spokes, a self-hosted tunnel server."""


@main_group.command(epilog="Example: spokes server --domain tun.example.net --data /var/lib/spokes")
@server_options
@pass_settings
def server(settings: Settings) -> None:
    """Run the server."""
    from spokes.server.process.run import run_server  # the engine is loaded only by the verb that needs it

    config = settings.load()
    os.umask(0o077)
    setup_logging(config.log_format, config.log_level)
    stdout = outlet_of(sys.stdout)
    run_server(config, reread=settings.load, echo=lambda line: stdout.write(line + "\n"))


@main_group.command(epilog="Example: spokes status --json | jq .tunnels.online")
@json_option
@store_options
@pass_settings
def status(settings: Settings, as_json: bool) -> None:
    """Show what the running server does."""
    facts = _server_status(control_path(settings.load()))
    if as_json:
        print_json(facts)
        return
    if facts["role"] == "standby":
        print_table(["Fact", "Value"], _standby_rows(facts))
        return
    connections, memory = facts["connections"], facts["memory"]
    rows = [
        ["Version", facts["version"]],
        ["Domain", facts["domain"]],
        ["Uptime", f"{facts['uptime_s']} s"],
        ["HTTP", ", ".join(facts["http"])],
        ["HTTPS", ", ".join(facts["https"])],
        ["Tunnels", f"{facts['tunnels']['online']} on-line of {facts['tunnels']['active']}"],
        ["Visitors", f"{connections['visitors_open']} now, {connections['visitors_total']} in all"],
        ["Links, streams", f"{connections['links_open']}, {connections['streams_open']}"],
        ["Bytes", f"{size_text(facts['bytes']['in'])} in, {size_text(facts['bytes']['out'])} out"],
        ["Datagrams", _datagrams_text(facts.get("datagrams", {}))],
        ["Loops", str(facts.get("loops", "-"))],
        ["Buffers", f"{size_text(memory['buffers_bytes'])} of {size_text(memory['limit_bytes'])}"],
        ["Administration", _admin_text(facts["admin"])],
        ["Role", facts["role"]],
        ["Tasks", tasks_text(facts.get("tasks", []))],
    ]
    if set_aside := facts.get("changes_set_aside"):
        rows.append(["Set aside", f"not in force, the log says why: {', '.join(set_aside)}"])
    rows += [
        ["Certificate", f"{', '.join(one['names'])} until {time_text(one['expires'])}"] for one in facts["certificates"]
    ]
    rows.append(["Key", facts["link_key"]])
    print_table(["Fact", "Value"], rows)


def _server_status(path: Path) -> dict[str, Any]:
    """Of the server of this host, else of its standby."""
    try:
        facts: dict[str, Any] = call_control(path, "status")
    except NoServerError:
        standby = standby_status(path.parent)
        if standby is None:
            raise
        return standby
    return facts


def _standby_rows(facts: dict[str, Any]) -> list[list[str]]:
    lock = ", its data directory is in use" if facts["lock_held"] else ""
    return [
        ["Version", facts["version"]],
        ["Domain", facts["domain"]],
        ["Uptime", f"{facts['uptime_s']} s"],
        ["Role", facts["role"]],
        ["Primary", f"{facts['primary']}{lock}"],
        ["Failed probes", f"{facts['failures']} in a row, takes over after {facts['failures_allowed']}"],
    ]


def _datagrams_text(figures: dict[str, int]) -> str:
    """A server before this version tells nothing of them."""
    if not figures:
        return "-"
    return f"{figures['in']} from visitors, {figures['out']} to them, {figures['dropped']} dropped"


def _admin_text(facts: dict[str, int] | None) -> str:
    if facts is None:
        return "switched off"
    running = f"process {facts['pid']}" if facts["pid"] else "not running"
    return f"{running}, started {facts['starts_total']} times"


@main_group.command(epilog="Example: spokes reload")
@json_option
@store_options
@pass_settings
def reload(settings: Settings, as_json: bool) -> None:
    """Let the running server read its configuration again."""
    facts = call_control(control_path(settings.load()), "reload")
    if as_json:
        print_json(facts)
        return
    later = facts["restart_needed_for"]
    click.echo("Configuration read again" + (f"; after a restart: {', '.join(later)}" if later else ""))


main_group.add_command(check_config)


@main_group.command(epilog="Example: spokes version --json")
@config_option
@json_option
def version(as_json: bool) -> None:
    """Print the version."""
    if as_json:
        print_json({"version": spokes.__version__, "python": sys.version.split()[0]})
    else:
        click.echo(f"spokes {spokes.__version__}")


def main() -> None:
    sys.exit(run_program(main_group, "spokes"))
