"""`spokes user`: manages users and their limits. Domains and passwords are modules of their own."""

from __future__ import annotations

import re
from typing import Any

import click

from spokes import clock
from spokes.admin.schema.people import Person, person_object
from spokes.admin.schema.users import BYTES_PER_MEGABYTE
from spokes.cli.admin_domains import domain
from spokes.cli.admin_passwords import password, totp
from spokes.cli.admin_shell import (
    Shell,
    changing,
    confirm,
    moment,
    plain,
    print_object,
    print_result,
    reading,
    say,
    verb,
    yes_no,
    yes_option,
)
from spokes.cli.server_options import Command, Settings, print_json
from spokes.cli.table import print_table
from spokes.model.users import COUNT_MAX, CreateUser, DeleteUser, EditUser
from spokes.plural import counted
from spokes.store import User
from spokes.store.rows import ADMIN_ROLE, ROLES

ANY = "any"
_MEGABYTES_OF = {"": 1, "M": 1, "G": 1_000, "T": 1_000_000}


class CountType(click.ParamType[int]):
    """A number, or `any`: -1."""

    name = "count"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value)
        if text == ANY or value == -1:
            return -1
        if not (text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= COUNT_MAX):
            self.fail(f"{text!r} is no number and not {ANY!r}", param, ctx)
        return int(text)


class BandwidthType(click.ParamType[int]):
    """Decimal megabytes: `2000`, `2000M`, `500G`, `2T`; `any` is 0."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if value == ANY:
            return 0
        match = re.fullmatch(r"([0-9]{1,12})([MGT]?)B?", str(value).upper())
        if match is None:
            self.fail(f"{value!r} is no size; use a form such as 2000M, 500G or 2T, or {ANY!r}", param, ctx)
        return int(match[1]) * _MEGABYTES_OF[match[2]]


COUNT = CountType()
BANDWIDTH = BandwidthType()


def limit_options(command: Command) -> Command:
    """What a user may have."""
    for option in (
        click.option(
            "--check-domains/--any-domain", default=None,
            help="Serve only the domains of `spokes user domain`, or any.",
        ),
        click.option(
            "--ports", type=COUNT, metavar=f"N|{ANY}", help="Public ports of all the tunnels together; 0: none at all."
        ),
        click.option(
            "--tunnels", type=COUNT, metavar=f"N|{ANY}", help=f"Tunnels; with 0 or {ANY} `tunnels_per_user_max` holds."
        ),
        click.option(
            "--bandwidth", type=BANDWIDTH, metavar=f"SIZE|{ANY}",
            help="Traffic of a calendar month, both ways: 2000M, 500G, 2T (decimal).",
        ),
    ):
        command = option(command)
    return command


def person_options(command: Command) -> Command:
    """Who a user is."""
    for option in (
        click.option("--role", type=click.Choice(ROLES), help="admin: everything. basic: only what is theirs."),
        click.option("--phone", metavar="TEXT", help="Telephone number."),
        click.option("--fullname", metavar="TEXT", help="Name of the person or customer."),
        click.option("--email", metavar="ADDRESS", help="E-mail address; people log in with it."),
    ):
        command = option(command)
    return command


user_argument = click.argument("user_name", metavar="USER")


@click.group(epilog="Example: spokes user create --email mara@example.org --bandwidth 500G")
def user() -> None:
    """Users: owners of tunnels with limits, people who log in. USER is an id or an e-mail address."""


for part in (domain, password, totp):
    user.add_command(part)


@user.command("list", epilog="Example: spokes user list --json | jq -r '.users[].email'")
@verb
def list_users(settings: Settings, as_json: bool) -> None:
    """List all users, inactive ones too, with this month's traffic."""
    with reading(settings) as shell:
        used = shell.store.traffic.month_of_users(clock.wall_s())
        people = [person_object(one, used.get(one.uid, 0)) for one in shell.store.users.select()]
    if as_json:
        print_json({"users": [plain(one) for one in people]})
        return
    rows = [
        [
            one.id, one.email, one.fullname, one.role, yes_no(one.active),
            _traffic_text(used.get(one.id, 0), one.bandwidth_mb), _count_text(one.tunnel_count_max or -1),
            _count_text(one.max_ports if one.check_ports else -1),
        ]
        for one in people
    ]
    print_table(["Id", "E-mail", "Name", "Role", "Active", "Traffic", "Tunnels", "Ports"], rows)


@user.command("show", epilog="Example: spokes user show mara@example.org")
@user_argument
@verb
def show(settings: Settings, user_name: str, as_json: bool) -> None:
    """Show a user with limits, domains and tunnels."""
    with reading(settings) as shell:
        one = shell.user(user_name)
        tunnels = shell.store.tunnels.of_user(one.uid)
        monthly = shell.store.traffic.usage_of_user(one.uid, clock.wall_s()).monthly
        person = person_object(one, monthly)
    if as_json:
        print_json(plain(person) | {"domains": list(one.domains), "tunnels": [tunnel.uid for tunnel in tunnels]})
        return
    print_table(["Fact", "Value"], [
        ["Id", one.uid],
        ["E-mail", one.email],
        ["Name", one.fullname],
        ["Phone", one.phone],
        ["Role", one.role],
        ["Active", yes_no(one.active)],
        ["Created", moment(one.created)],
        ["Password", "set" if one.password_hash else "none: cannot log in"],
        ["Second factor", "on" if one.totp_secret else "off"],
        ["Traffic this month", _traffic_text(monthly, one.bandwidth_mb)],
        ["Tunnels", f"{len(tunnels)} of {_count_text(one.max_tunnels or _default_max(shell, one) or -1)}"],
        ["Ports", _count_text(one.max_ports if one.check_ports else -1)],
        ["Domains", (", ".join(one.domains) or "none") if one.check_domains else ANY],
        *(["Tunnel", f"{tunnel.uid} {tunnel.hostname}"] for tunnel in tunnels),
    ])


@user.command("create", epilog="Example: spokes user create --email mara@example.org --role admin")
@click.option("--id", "uid", metavar="ID", help="An id of your own, 32 hex digits.")
@click.option("--inactive", is_flag=True, help="Create the user switched off.")
@person_options
@limit_options
@verb
def create(settings: Settings, uid: str | None, inactive: bool, as_json: bool, **given: Any) -> None:
    """Create a user. A password comes afterwards: spokes user password."""
    properties = _properties(given)
    properties["active"] = not inactive
    with changing(settings) as shell:
        made = shell.perform(CreateUser(uid=uid and uid.lower(), **properties))
    if as_json:
        print_object(person_object(made, 0))
        return
    say(f"User {_named(made)} is created, role {made.role}")
    click.echo(f"Id: {made.uid}")
    if made.email:
        say(f"To let them log in: spokes user password {made.email}")


@user.command("edit", epilog="Example: spokes user edit mara@example.org --fullname 'Mara Lind' --role basic")
@user_argument
@person_options
@verb
def edit(settings: Settings, user_name: str, as_json: bool, **given: Any) -> None:
    """Change who a user is; limits: spokes user limit."""
    if not _properties(given):
        raise click.UsageError("nothing to change: give --email, --fullname, --phone or --role")
    _edit(settings, user_name, _properties(given), "is changed", as_json=as_json)


@user.command("limit", epilog="Example: spokes user limit mara@example.org --bandwidth 500G --ports 5 --check-domains")
@user_argument
@limit_options
@verb
def limit(settings: Settings, user_name: str, as_json: bool, **given: Any) -> None:
    """Change what a user may have; what is not named stays. A running server acts on it at once."""
    if not _properties(given):
        raise click.UsageError("nothing to change: give --bandwidth, --tunnels, --ports, --check-domains, --any-domain")
    _edit(settings, user_name, _properties(given), "has the new limits", as_json=as_json)


@user.command("activate", epilog="Example: spokes user activate mara@example.org")
@user_argument
@verb
def activate(settings: Settings, user_name: str, as_json: bool) -> None:
    """Let a user and their tunnels in again."""
    _edit(settings, user_name, {"active": True}, "is active", as_json=as_json)


@user.command("deactivate", epilog="Example: spokes user deactivate mara@example.org")
@user_argument
@verb
def deactivate(settings: Settings, user_name: str, as_json: bool) -> None:
    """End a user's sessions and those of their tunnels, and refuse new ones; nothing is deleted."""
    _edit(settings, user_name, {"active": False}, "is inactive", as_json=as_json)


@user.command("delete", epilog="Example: spokes user delete mara@example.org --yes")
@user_argument
@yes_option
@verb
def delete(settings: Settings, user_name: str, yes: bool, as_json: bool) -> None:
    """Delete a user with everything that is theirs: tunnels, API keys, webhooks, sessions."""
    with changing(settings) as shell:
        one = shell.user(user_name)
        count = len(shell.store.tunnels.of_user(one.uid))
        confirm(f"Delete {_named(one)} and {counted(count, 'tunnel')} for good?", yes=yes)
        tunnels = shell.perform(DeleteUser(one.uid))
    print_result(
        {"id": one.uid, "tunnels": tunnels},
        f"User {_named(one)} is deleted, with {counted(len(tunnels), 'tunnel')}", as_json=as_json,
    )


def _edit(settings: Settings, user_name: str, changes: dict[str, Any], done: str, *, as_json: bool) -> None:
    with changing(settings) as shell:
        edited = shell.perform(EditUser(shell.user(user_name).uid, **changes))
        person = _person(shell, edited)
    print_result(person, f"User {_named(edited)} {done}", as_json=as_json)


def _properties(given: dict[str, Any]) -> dict[str, Any]:
    """What the options name, in the store's words."""
    properties = {name: given[name] for name in ("email", "fullname", "phone", "role") if given.get(name) is not None}
    if given.get("bandwidth") is not None:
        properties["bandwidth_mb"] = given["bandwidth"]
    if given.get("tunnels") is not None:
        properties["max_tunnels"] = max(0, given["tunnels"])
    if given.get("ports") is not None:
        properties |= {"check_ports": given["ports"] >= 0, "max_ports": max(0, given["ports"])}
    if given.get("check_domains") is not None:
        properties["check_domains"] = given["check_domains"]
    return properties


def _person(shell: Shell, one: User) -> Person:
    return person_object(one, shell.store.traffic.usage_of_user(one.uid, clock.wall_s()).monthly)


def _default_max(shell: Shell, one: User) -> int:
    return 0 if one.role == ADMIN_ROLE else shell.store.settings.tunnels_per_user_max


def _named(one: User) -> str:
    return one.email or one.fullname or one.uid


def _traffic_text(used_bytes: int, limit_mb: int) -> str:
    used_mb = f"{used_bytes / BYTES_PER_MEGABYTE:.0f}"
    return f"{used_mb} of {limit_mb} MB" if limit_mb else f"{used_mb} MB"


def _count_text(count: int) -> str:
    return str(count) if count >= 0 else ANY
