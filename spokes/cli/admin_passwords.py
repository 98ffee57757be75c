"""`spokes user password` and `spokes user totp`: set the password and the second factor of a person."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from spokes.admin.passwords import hash_password, new_totp_secret, provisioning_uri, totp_step
from spokes.cli.admin_shell import changing, print_result, reading, say, verb
from spokes.cli.server_options import Settings, print_json
from spokes.errors import ValueRefusedError
from spokes.model.passwords import SetPassword, SetTotp

PASSWORD_VARIABLE = "SPOKES_PASSWORD"    # noqa: S105  the variable's name

user_argument = click.argument("user_name", metavar="USER")


@click.command(
    epilog="Example: spokes user password mara@example.org\n\n"
    "In a script: spokes user password mara@example.org --password-file secret.txt"
)
@user_argument
@click.option(
    "--password-file", type=click.Path(path_type=Path, allow_dash=True), metavar="FILE",
    help=f"Its first line; - is standard input. Or the variable {PASSWORD_VARIABLE}; else you are asked.",
)
@click.option("--remove", is_flag=True, help="No password: the user cannot log in.")
@verb
def password(settings: Settings, user_name: str, password_file: Path | None, remove: bool, as_json: bool) -> None:
    """Set a user's password; their sessions end."""
    with reading(settings) as shell:
        shell.user(user_name)            # before anybody types a password for nobody
    password_hash = "" if remove else hash_password(_read_password(password_file))
    with changing(settings) as shell:
        one = shell.perform(SetPassword(shell.user(user_name).uid, password_hash))
    if as_json:
        print_json({"id": one.uid, "hasPassword": bool(password_hash)})
    else:
        say(f"The password of {one.email or one.uid} is {'set' if password_hash else 'removed'}; their sessions ended")
        if password_hash and not one.email:
            say(f"People log in by e-mail address: spokes user edit {one.uid} --email ADDRESS")


@click.group(epilog="Example: spokes user totp enrol mara@example.org")
def totp() -> None:
    """The second factor of a person: codes of an authenticator."""


@totp.command("enrol", epilog="Example: spokes user totp enrol mara@example.org")
@user_argument
@click.option("--no-confirm", is_flag=True, help="Turn it on without asking for a first code.")
@verb
def enrol(settings: Settings, user_name: str, no_confirm: bool, as_json: bool) -> None:
    """Make a secret for the person's authenticator, and turn it on once a code fits."""
    if not no_confirm and not sys.stdin.isatty():
        raise click.UsageError("a first code is asked for on a terminal; in a script say --no-confirm")
    with reading(settings) as shell:
        one = shell.user(user_name)
        domain = shell.domain()
    secret = new_totp_secret()
    uri = provisioning_uri(secret, one.email or one.uid, domain)
    if not as_json:
        click.echo(f"Secret: {secret}")
        click.echo(f"Or as a link: {uri}")
    step = None
    if not no_confirm:
        if as_json:
            click.echo(f"Secret: {secret}", err=True)
        step = totp_step(secret, click.prompt("Code that the authenticator shows", err=True))
        if step is None:
            raise ValueRefusedError("the code does not fit", hint="check the authenticator's clock; nothing is changed")
    with changing(settings) as shell:
        shell.perform(SetTotp(one.uid, secret))
        if step is not None:
            shell.store.users.use_totp_step(one.uid, step)
    print_result(
        {"id": one.uid, "secret": secret, "uri": uri},
        f"The second factor of {one.email or one.uid} is on; their sessions ended", as_json=as_json,
    )


@totp.command("off", epilog="Example: spokes user totp off mara@example.org")
@user_argument
@verb
def off(settings: Settings, user_name: str, as_json: bool) -> None:
    """Turn the second factor off, for somebody who lost theirs; their sessions end."""
    with changing(settings) as shell:
        one = shell.perform(SetTotp(shell.user(user_name).uid, ""))
    print_result(
        {"id": one.uid, "hasTotp": False},
        f"The second factor of {one.email or one.uid} is off; their sessions ended", as_json=as_json,
    )


def _read_password(file: Path | None) -> str:
    if file is not None:
        try:
            text = sys.stdin.readline() if str(file) == "-" else file.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise ValueRefusedError(f"{file} holds no text") from None
        return text.splitlines()[0] if text else ""
    if given := os.environ.get(PASSWORD_VARIABLE):
        return given
    if not sys.stdin.isatty():
        raise click.UsageError(f"no terminal to ask on: give --password-file or the variable {PASSWORD_VARIABLE}")
    answer: str = click.prompt("New password", hide_input=True, confirmation_prompt=True, err=True)
    return answer
