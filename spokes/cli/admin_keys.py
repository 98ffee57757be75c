"""`spokes apikey`: keys of the Admin API."""

from __future__ import annotations

import click

from spokes.admin.schema.access import key_object
from spokes.cli.admin_shell import changing, moment, plain, print_result, reading, verb, yes_no
from spokes.cli.server_options import Settings, print_json
from spokes.cli.table import print_table
from spokes.ids import ZERO_UID
from spokes.model.api_keys import CreateApiKey, DeleteApiKey, EditApiKey
from spokes.store.rows import SCOPES


@click.group(epilog="Example: spokes apikey create --description billing --scope read")
def apikey() -> None:
    """Keys of the Admin API; the value of one is shown once and stored nowhere."""


@apikey.command("create", epilog="Example: spokes apikey create --description billing --json")
@click.option("--description", default="", help="What it is for.")
@click.option(
    "--scope", "scopes", type=click.Choice(SCOPES), multiple=True, default=("read", "write"), show_default=True,
    help="What it may be used for; give it again for more.",
)
@click.option("--user", "user_name", metavar="USER", help="Whose key it is, with their role; without: the system's.")
@verb
def create(
    settings: Settings, description: str, scopes: tuple[str, ...], user_name: str | None, as_json: bool
) -> None:
    """Create a key and print its value, this once."""
    with changing(settings) as shell:
        user_uid = shell.user(user_name).uid if user_name else ZERO_UID
        key, value = shell.perform(CreateApiKey(description, scopes=scopes, user_uid=user_uid))
    if as_json:
        print_json(plain(key_object(key)) | {"value": value})
    else:
        click.echo(f"Key: {value}")
        click.echo(f"Id:  {key.uid}")


@apikey.command("list", epilog="Example: spokes apikey list --json")
@click.option("--user", "user_name", metavar="USER", help="Only this user's.")
@verb
def list_keys(settings: Settings, user_name: str | None, as_json: bool) -> None:
    """List all keys, inactive ones too, with their last use."""
    with reading(settings) as shell:
        keys = shell.store.api_keys.select(user_uid=shell.user(user_name).uid if user_name else None)
        owners = shell.owners(key.user_uid for key in keys)
    if as_json:
        print_json({"keys": [plain(key_object(key)) for key in keys]})
        return
    rows = [
        [
            key.uid, key.prefix, yes_no(key.active), " ".join(key.scopes),
            owners[key.user_uid], moment(key.last_used), key.last_address,
            key.description,
        ]
        for key in keys
    ]
    print_table(["Id", "Begins", "Active", "Scopes", "User", "Last used", "From", "Description"], rows)


@apikey.command("edit", epilog="Example: spokes apikey edit 3b1f0c5d7e9a42868fd0c1b2a3948576 --inactive")
@click.argument("key_id", metavar="ID")
@click.option("--description", help="New description.")
@click.option("--active/--inactive", default=None, help="Switch it on or off.")
@verb
def edit(settings: Settings, key_id: str, description: str | None, active: bool | None, as_json: bool) -> None:
    """Change a key's description, or switch it on or off; off ends its sessions."""
    if description is None and active is None:
        raise click.UsageError("nothing to change: give --description, --active or --inactive")
    with changing(settings) as shell:
        key = shell.perform(EditApiKey(key_id.lower(), description=description, active=active))
    print_result(key_object(key), f"API key {key.uid} is {'active' if key.active else 'inactive'}", as_json=as_json)


@apikey.command("revoke", epilog="Example: spokes apikey revoke 3b1f0c5d7e9a42868fd0c1b2a3948576")
@click.argument("key_id", metavar="ID")
@verb
def revoke(settings: Settings, key_id: str, as_json: bool) -> None:
    """Delete a key; its sessions end at once."""
    with changing(settings) as shell:
        shell.perform(DeleteApiKey(key_id.lower()))
    print_result({"id": key_id.lower()}, f"API key {key_id.lower()} is revoked", as_json=as_json)
