"""`spoke`: the client's command line, put together from its verbs."""

from __future__ import annotations

import platform
import sys

import click

import spokes
from spokes.cli.client_check import check_config
from spokes.cli.client_options import config_option, json_option, show
from spokes.cli.client_rules import http_rules, tcp_rules, tunnel
from spokes.cli.client_serve import http, start, tcp
from spokes.cli.client_tunnel import configure, edit, info
from spokes.cli.entry import run_program


@click.group(epilog="Example: spoke configure --url https://tun.example.net && spoke http 8080")
@click.version_option(spokes.__version__, prog_name="spoke", message="%(prog)s %(version)s")
@config_option
def spoke() -> None:
    """Give local services public addresses through a Spokes server."""


@spoke.command(epilog="Example: spoke version --json")
@config_option
@json_option
def version(as_json: bool) -> None:
    """Print the version."""
    facts = {"version": spokes.__version__, "os": platform.system().lower(), "arch": platform.machine()}
    show(facts, f"spoke {spokes.__version__} ({facts['os']} {facts['arch']})", as_json=as_json)


for verb in (check_config, configure, info, edit, start, tunnel):
    spoke.add_command(verb)
spoke.add_command(tunnel, "route")
for served, rules in ((http, http_rules), (tcp, tcp_rules)):
    spoke.add_command(served)
    for name, rule_verb in rules.commands.items():
        served.add_command(rule_verb, name)


def main() -> None:
    sys.exit(run_program(spoke, "spoke"))


if __name__ == "__main__":
    main()
