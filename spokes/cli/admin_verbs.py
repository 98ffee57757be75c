"""All verbs of `spokes` that administer, each loaded when it is typed: a server that runs needs none of them."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

_MODULES = {
    "alerts": "admin_alerts",
    "apikey": "admin_keys",
    "backup": "admin_data",
    "cert": "admin_certificates",
    "db": "admin_data",
    "events": "admin_events",
    "port": "admin_ports",
    "restore": "admin_data",
    "token": "admin_tokens",
    "tunnel": "admin_tunnels",
    "user": "admin_users",
    "webhook": "admin_webhooks",
}


class AdminVerbs(click.Group):
    """A group that has them beside its own verbs. In its module a verb is named as it is typed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *_MODULES])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.exceptions.NoSuchCommand as error:  # it names verbs that are loaded already
            raise click.exceptions.NoSuchCommand(
                error.command_name, possibilities=self.list_commands(ctx), ctx=ctx
            ) from None

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _MODULES:
            return super().get_command(ctx, cmd_name)
        module: Any = import_module(f"spokes.cli.{_MODULES[cmd_name]}")
        verb: click.Command = getattr(module, cmd_name)
        return verb
