"""`spokes token`: registration tokens."""

from __future__ import annotations

import click

from spokes.cli.admin_shell import changing, print_result, reading, verb
from spokes.cli.server_options import Settings, print_json
from spokes.cli.table import print_table, time_text
from spokes.errors import NotFoundError
from spokes.model.tokens import CreateToken, DeleteToken, EditToken
from spokes.store import Token


@click.group(epilog="Example: spokes token create --description 'branch offices'")
def token() -> None:
    """Registration tokens: whoever has one may register tunnels."""


max_tunnels_option = click.option(
    "--max-tunnels", type=click.IntRange(0), metavar="N", help="Tunnels that may exist by it; 0 = any number."
)
max_tunnels_per_hour_option = click.option(
    "--max-tunnels-per-hour", type=click.IntRange(0), metavar="N", help="Registrations in an hour; 0 = any number."
)


@token.command("create", epilog="Example: spokes token create --json")
@click.option("--description", default="", help="What it is for.")
@click.option("--inactive", is_flag=True, help="Create it switched off.")
@max_tunnels_option
@max_tunnels_per_hour_option
@verb
def create(
    settings: Settings,
    description: str,
    inactive: bool,
    max_tunnels: int | None,
    max_tunnels_per_hour: int | None,
    as_json: bool,
) -> None:
    """Create a token and print its value."""
    with changing(settings) as shell:
        made = shell.perform(CreateToken(
            description,
            active=not inactive,
            tunnel_count_max=max_tunnels or 0,
            tunnels_per_hour_max=max_tunnels_per_hour or 0,
        ))
    if as_json:
        print_json(_facts(made) | {"value": made.value})
    else:
        click.echo(f"Token: {made.value}")
        click.echo(f"Id:    {made.uid}")


@token.command("list", epilog="Example: spokes token list --json")
@click.option("--values", is_flag=True, help="Show the values too.")
@verb
def list_tokens(settings: Settings, values: bool, as_json: bool) -> None:
    """List all tokens, inactive ones too."""
    with reading(settings) as shell:
        tokens = shell.store.tokens.select()
    if as_json:
        print_json({"tokens": [_facts(one) | ({"value": one.value} if values else {}) for one in tokens]})
        return
    heads = ["Id", "Active", "Created", "Tunnels", "Per hour", "Description", *(["Value"] if values else [])]
    rows = [
        [
            one.uid,
            "yes" if one.active else "no",
            time_text(one.created),
            str(one.tunnel_count_max or "any"),
            str(one.tunnels_per_hour_max or "any"),
            one.description,
            *([one.value] if values else []),
        ]
        for one in tokens
    ]
    print_table(heads, rows)


@token.command("edit", epilog="Example: spokes token edit 3b1f0c5d7e9a42868fd0c1b2a3948576 --inactive")
@click.argument("token_id", metavar="ID")
@click.option("--description", help="New description.")
@click.option("--active/--inactive", default=None, help="Switch it on or off.")
@max_tunnels_option
@max_tunnels_per_hour_option
@verb
def edit(
    settings: Settings,
    token_id: str,
    description: str | None,
    active: bool | None,
    max_tunnels: int | None,
    max_tunnels_per_hour: int | None,
    as_json: bool,
) -> None:
    """Change a token's description or maxima, or switch it on or off."""
    if description is None and active is None and max_tunnels is None and max_tunnels_per_hour is None:
        raise click.UsageError(
            "nothing to change: give --description, --active, --inactive, --max-tunnels or --max-tunnels-per-hour"
        )
    with changing(settings) as shell:
        before = next((one for one in shell.store.tokens.select() if one.uid == token_id), None)
        if before is None:
            raise NotFoundError("unknown registration token", hint="`spokes token list` shows the ids")
        edited = shell.perform(EditToken(
            token_id,
            before.description if description is None else description,
            before.active if active is None else active,
            tunnel_count_max=max_tunnels,
            tunnels_per_hour_max=max_tunnels_per_hour,
        ))
    print_result(_facts(edited), f"Token {edited.uid} is {'active' if edited.active else 'inactive'}", as_json=as_json)


@token.command("delete", epilog="Example: spokes token delete 3b1f0c5d7e9a42868fd0c1b2a3948576")
@click.argument("token_id", metavar="ID")
@verb
def delete(settings: Settings, token_id: str, as_json: bool) -> None:
    """Delete a token; tunnels registered with it go on."""
    with changing(settings) as shell:
        shell.perform(DeleteToken(token_id))
    print_result({"id": token_id}, f"Token {token_id} is deleted", as_json=as_json)


def _facts(one: Token) -> dict[str, object]:
    return {
        "id": one.uid,
        "created": time_text(one.created),
        "modified": time_text(one.modified),
        "active": one.active,
        "description": one.description,
        "max_tunnels": one.tunnel_count_max,
        "max_tunnels_per_hour": one.tunnels_per_hour_max,
    }
