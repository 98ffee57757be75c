"""`spokes webhook`: manages webhooks, the addresses that are told of events, and their deliveries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from msgspec import UNSET

from spokes.admin.resources import webhooks as webhook_calls
from spokes.admin.schema.webhooks import DeliveryRequest, WebhookRequest, delivery_object, webhook_object
from spokes.cli.admin_shell import (
    changing,
    confirm,
    moment,
    plain,
    print_result,
    reading,
    say,
    verb,
    yes_no,
    yes_option,
)
from spokes.cli.server_options import Settings, print_json
from spokes.cli.table import print_table
from spokes.errors import ValueRefusedError
from spokes.ids import ZERO_UID
from spokes.model.webhook import EVERYTHING, SUBJECTS
from spokes.model.webhooks import CreateWebhook, DeleteWebhook, EditWebhook

SECRET_CHARS_MIN = 16                    # as the Admin API

webhook_argument = click.argument("webhook_id", metavar="ID")
kind_option = click.option(
    "--kind", "kinds", multiple=True, metavar="KIND",
    help="Whole (service.up) or the first word; again for more; without or *: all. "
    f"First words: {', '.join(SUBJECTS)}.",
)
secret_option = click.option(
    "--secret-file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="Holds the secret that signs deliveries; without, one is made.",
)


@click.group(epilog="Example: spokes webhook create https://hooks.example.org/spokes --kind service --kind alert")
def webhook() -> None:
    """Webhooks: addresses that are told of events."""


@webhook.command("list", epilog="Example: spokes webhook list --json")
@verb
def list_webhooks(settings: Settings, as_json: bool) -> None:
    """List all webhooks, inactive ones too, and how many deliveries wait or failed."""
    with reading(settings) as shell:
        webhooks = shell.store.webhooks.select()
        counts = {one.uid: shell.store.deliveries.count(one.uid) for one in webhooks}
    if as_json:
        print_json({
            "webhooks": [plain(webhook_object(one)) | {"deliveries": counts[one.uid]} for one in webhooks]
        })
        return
    rows = [
        [
            one.uid, yes_no(one.active), one.url, " ".join(one.kinds) or "all",
            "everyone" if one.user_uid == ZERO_UID else one.user_uid,
            ", ".join(f"{count} {state}" for state, count in counts[one.uid].items() if count) or "-",
            one.description,
        ]
        for one in webhooks
    ]
    print_table(["Id", "Active", "Address", "Kinds", "Hears of", "Deliveries", "Description"], rows)


@webhook.command("create", epilog="Example: spokes webhook create https://hooks.example.org/spokes --kind service")
@click.argument("url")
@click.option("--description", default="", help="What it is for.")
@kind_option
@secret_option
@click.option("--user", "user_name", metavar="USER", help="Hears of this user's tunnels alone.")
@click.option("--allow-private", is_flag=True, help="The address may lie in a private network.")
@click.option("--inactive", is_flag=True, help="Create it switched off.")
@verb
def create(
    settings: Settings, url: str, description: str, kinds: tuple[str, ...], secret_file: Path | None,
    user_name: str | None, allow_private: bool, inactive: bool, as_json: bool,
) -> None:
    """Make a webhook and print the secret that signs its deliveries, this once."""
    with changing(settings) as shell:
        made = shell.perform(CreateWebhook(
            url, user_uid=shell.user(user_name).uid if user_name else ZERO_UID, description=description,
            kinds=_checked_kinds(kinds), active=not inactive, allow_private=allow_private,
            secret=UNSET if secret_file is None else _read_secret(secret_file),
        ))
    if as_json:
        print_json(plain(webhook_object(made)) | {"secret": made.secret})
    else:
        click.echo(f"Id:     {made.uid}")
        say(f"Secret: {made.secret}")
        click.echo(f"To try it: spokes webhook test {made.uid}")


@webhook.command("edit", epilog="Example: spokes webhook edit 3b1f0c5d7e9a42868fd0c1b2a3948576 --inactive")
@webhook_argument
@click.option("--url", help="New address.")
@click.option("--description", help="New description.")
@kind_option
@secret_option
@click.option("--allow-private/--refuse-private", default=None, help="Whether it may lie in a private network.")
@click.option("--active/--inactive", default=None, help="Switch it on or off.")
@verb
def edit(
    settings: Settings, webhook_id: str, url: str | None, description: str | None, kinds: tuple[str, ...],
    secret_file: Path | None, allow_private: bool | None, active: bool | None, as_json: bool,
) -> None:
    """Change what is named of a webhook."""
    changes: dict[str, Any] = {}
    if url is not None:
        changes["url"] = url
    if description is not None:
        changes["description"] = description
    if kinds:
        changes["kinds"] = _checked_kinds(kinds)
    if secret_file is not None:
        changes["secret"] = _read_secret(secret_file)
    if allow_private is not None:
        changes["allow_private"] = allow_private
    if active is not None:
        changes["active"] = active
    if not changes:
        raise click.UsageError("nothing to change: `spokes webhook edit --help` shows what can be")
    with changing(settings) as shell:
        edited = shell.perform(EditWebhook(webhook_id.lower(), **changes))
    print_result(
        webhook_object(edited),
        f"Webhook {edited.uid} is changed; it is {'active' if edited.active else 'inactive'}", as_json=as_json,
    )


@webhook.command("delete", epilog="Example: spokes webhook delete 3b1f0c5d7e9a42868fd0c1b2a3948576 --yes")
@webhook_argument
@yes_option
@verb
def delete(settings: Settings, webhook_id: str, yes: bool, as_json: bool) -> None:
    """Delete a webhook with its deliveries, sent or not."""
    with changing(settings) as shell:
        one = shell.store.webhooks.get(webhook_id.lower())
        confirm(f"Delete the webhook {one.url} and what was to be sent there?", yes=yes)
        shell.perform(DeleteWebhook(one.uid))
    print_result({"id": one.uid}, f"Webhook {one.uid} is deleted", as_json=as_json)


@webhook.command("deliveries", epilog="Example: spokes webhook deliveries 3b1f0c5d7e9a42868fd0c1b2a3948576 --limit 20")
@webhook_argument
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="How many.")
@click.option("--before", type=click.IntRange(0), metavar="N", help="Only those before this number.")
@verb
def deliveries(settings: Settings, webhook_id: str, limit: int, before: int | None, as_json: bool) -> None:
    """List what was sent to a webhook, newest first, and what came of it; bodies with --json."""
    with reading(settings) as shell:
        one = shell.store.webhooks.get(webhook_id.lower())
        found = shell.store.deliveries.select(one.uid, before=before, limit=limit)
    if as_json:
        print_json({"deliveries": [plain(delivery_object(delivery)) for delivery in found]})
        return
    rows = [
        [
            delivery.uid, str(delivery.seq), moment(delivery.created), delivery.kind, delivery.state.value,
            str(delivery.attempts), str(delivery.http_status or "-"), delivery.error,
        ]
        for delivery in found
    ]
    print_table(["Id", "No.", "Created", "Kind", "State", "Tries", "HTTP", "Error"], rows)


@webhook.command("resend", epilog="Example: spokes webhook resend 9c41d2f1a0b34c6d8e5f7a6b5c4d3e2f")
@click.argument("delivery_id", metavar="DELIVERY")
@verb
def resend(settings: Settings, delivery_id: str, as_json: bool) -> None:
    """Send a delivery once more, as it was."""
    with changing(settings) as shell:
        answer = webhook_calls.resend(shell.admin, shell.caller, DeliveryRequest(delivery_uid=delivery_id.lower()))
    print_result(answer.delivery, f"Delivery {answer.delivery.id} is queued", as_json=as_json)


@webhook.command("test", epilog="Example: spokes webhook test 3b1f0c5d7e9a42868fd0c1b2a3948576")
@webhook_argument
@verb
def test(settings: Settings, webhook_id: str, as_json: bool) -> None:
    """Have the running server send a test delivery."""
    with reading(settings) as shell:
        uid = webhook_id.lower()
        webhook_calls.test(shell.admin, shell.caller, WebhookRequest(webhook_uid=uid))
    print_result(
        {"id": uid}, f"A test delivery is queued; what comes of it: spokes webhook deliveries {uid}", as_json=as_json
    )


def _checked_kinds(kinds: tuple[str, ...]) -> tuple[str, ...]:
    for kind in kinds:
        if kind != EVERYTHING and kind.partition(".")[0] not in SUBJECTS:
            raise click.BadParameter(f"no event begins with {kind!r}; {', '.join(SUBJECTS)} do", param_hint="--kind")
    return kinds


def _read_secret(path: Path) -> str:
    try:
        secret = path.read_text(encoding="utf-8").strip()
    except UnicodeDecodeError:
        raise ValueRefusedError(f"{path} holds no text") from None
    if len(secret) < SECRET_CHARS_MIN:
        raise ValueRefusedError(f"a secret has at least {SECRET_CHARS_MIN} characters; {path} holds {len(secret)}")
    return secret
