"""All verbs of `spokes` that administer, each loaded when it is typed: a server that runs needs none of them."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

_MODULES = {
    "alerts": "admin_alerts",
    "apikey": "admin_keys",
    "backup": "admin_data",
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

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _MODULES:
            return super().get_command(ctx, cmd_name)
        module: Any = import_module(f"spokes.cli.{_MODULES[cmd_name]}")
        verb: click.Command = getattr(module, cmd_name)
        return verb
