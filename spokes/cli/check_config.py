"""`spokes check-config`: every setting with its source, and whether a server could start with them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from spokes.cli.server_options import (
    Settings,
    json_option,
    pass_settings,
    print_json,
    server_options,
    size_text,
)
from spokes.cli.table import print_table
from spokes.config import SETTINGS, ServerConfig
from spokes.config_values import Address, PortRange
from spokes.log import escape
from spokes.server.base.limits import memory_budget, open_files_of_ports, worker_terms

_HIDDEN = "store"  # a URL that may hold a password


@click.command("check-config", epilog="Example: spokes check-config --config /etc/spokes/spokes.toml")
@json_option
@server_options
@pass_settings
def check_config(settings: Settings, as_json: bool) -> int:
    """Read everything the server would read, try everything a start would try, change nothing."""
    from spokes.server.process.trial import try_start  # loads the engine

    config, origins = settings.load(), settings.origins()
    errors = try_start(config)
    budget = memory_budget(config)
    if as_json:
        values = asdict(config)
        print_json(
            {key: _plain(values[SETTINGS[key].field]) for key in SETTINGS if key != _HIDDEN}
            | {
                "data": str(config.data.absolute()),
                "store": _store_kind(config),
                "workers": config.worker_count,
                "workers_terms": worker_terms(config),
                "memory_limit_bytes": budget.limit_bytes,
                "memory_host_bytes": int(budget.machine.value),
                "memory_source": budget.machine.source,
                "memory_terms": budget.terms(),
                "open_files_of_ports": open_files_of_ports(config),
                "sources": origins,
                "problems": [{"code": one.code, "message": str(one), "hint": one.hint} for one in errors],
            }
        )
    else:
        rows = [[key, _text(key, config), origins[key]] for key in SETTINGS]
        rows += [
            ["(workers)", str(config.worker_count), worker_terms(config)],
            ["(memory)", size_text(budget.limit_bytes), budget.terms()],
            ["(open files of ports)", str(open_files_of_ports(config)), "tcp_ports, workers"],
        ]
        print_table(["Setting", "Value", "Source"], rows)
    for error in errors:
        click.echo(f"spokes: {escape(error.line())}", err=True)
    return 1 if errors else 0


def _store_kind(config: ServerConfig) -> str:
    return "sqlite" if config.store_url.startswith("sqlite:") else "postgresql"


def _text(key: str, config: ServerConfig) -> str:
    if key == _HIDDEN:
        return _store_kind(config)
    value = getattr(config, SETTINGS[key].field)
    return ", ".join(map(str, value)) if isinstance(value, tuple) else "" if value is None else str(value)


def _plain(value: Any) -> Any:
    """As JSON has it; asdict() took the addresses apart."""
    if isinstance(value, dict):
        return str(Address(**value) if "host" in value else PortRange(**value))
    if isinstance(value, (tuple, list)):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, Path) else value
