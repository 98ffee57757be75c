"""`spokes user domain`: which domains a user's tunnels may serve."""

from __future__ import annotations

from collections.abc import Callable

import click

from spokes.cli.admin_shell import changing, reading, say, verb
from spokes.cli.server_options import Settings, print_json
from spokes.cli.table import print_table
from spokes.model.domains import AllowDomains, RemoveDomains, ResetDomains
from spokes.model.operation import Operation
from spokes.plural import counted
from spokes.store import User


@click.group(epilog="Example: spokes user domain allow mara@example.org shop.example.org '*.example.net'")
def domain() -> None:
    """Domains that a user may serve, where they are checked (spokes user limit USER --check-domains)."""


user_argument = click.argument("user_name", metavar="USER")
domains_argument = click.argument("domains", metavar="DOMAIN...", nargs=-1, required=True)


@domain.command("list", epilog="Example: spokes user domain list mara@example.org --json")
@user_argument
@verb
def list_domains(settings: Settings, user_name: str, as_json: bool) -> None:
    """List the domains that are allowed to a user."""
    with reading(settings) as shell:
        one = shell.user(user_name)
    if as_json:
        print_json({"domains": list(one.domains), "checkDomains": one.check_domains})
        return
    print_table(["Domain"], [[name] for name in one.domains])
    if not one.check_domains:
        click.echo("Not checked: any domain may be served", err=True)


@domain.command("allow", epilog="Example: spokes user domain allow mara@example.org shop.example.org '*.example.net'")
@user_argument
@domains_argument
@verb
def allow(settings: Settings, user_name: str, domains: tuple[str, ...], as_json: bool) -> None:
    """Allow domains too; `*.name` stands for every name below it."""
    _change(settings, user_name, lambda uid: AllowDomains(uid, domains), as_json=as_json)


@domain.command("remove", epilog="Example: spokes user domain remove mara@example.org shop.example.org")
@user_argument
@domains_argument
@verb
def remove(settings: Settings, user_name: str, domains: tuple[str, ...], as_json: bool) -> None:
    """Allow domains no more; services that stand go on."""
    _change(settings, user_name, lambda uid: RemoveDomains(uid, domains), as_json=as_json)


@domain.command("reset", epilog="Example: spokes user domain reset mara@example.org")
@user_argument
@verb
def reset(settings: Settings, user_name: str, as_json: bool) -> None:
    """Empty the list of allowed domains."""
    _change(settings, user_name, ResetDomains, as_json=as_json)


def _change(settings: Settings, user_name: str, change: Callable[[str], Operation[User]], *, as_json: bool) -> None:
    with changing(settings) as shell:
        changed = shell.perform(change(shell.user(user_name).uid))
    if as_json:
        print_json({"domains": list(changed.domains), "checkDomains": changed.check_domains})
        return
    say(f"Allowed: {counted(len(changed.domains), 'domain')}")
    if not changed.check_domains:
        say(f"They are not checked yet: spokes user limit {changed.email or changed.uid} --check-domains")
