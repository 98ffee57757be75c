"""`spoke check-config`: what a start would read and use, member by member, without connecting."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import click

from spokes.cli.client_options import Settings, config_option, json_option, pass_settings, show, size_options
from spokes.cli.server_options import size_text
from spokes.cli.table import print_table
from spokes.client.config import KNOWN_MEMBERS, ClientConfig
from spokes.client.webroots import usable_web_root
from spokes.config import nearest
from spokes.errors import SpokesError
from spokes.log import escape


@click.command("check-config", epilog="Example: spoke check-config --config /etc/spoke/config.json")
@size_options
@config_option
@json_option
@pass_settings
def check_config(settings: Settings, as_json: bool, workers: int, memory_limit_bytes: int) -> int:
    """Read the configuration as a start would, tell what is wrong or unknown in it, change nothing."""
    from spokes.client.endpoint import Endpoint
    from spokes.client.engine import engine_size  # loads the engine

    config = ClientConfig.load(settings.path)
    steps: list[Callable[[], object]] = [config.require_identity, lambda: Endpoint.of(config)]
    steps += [partial(usable_web_root, site.web_root) for site in config.sites() if site.web_root]
    problems = [error for step in steps if (error := _fault(step)) is not None]
    closed = _fault(config.require_writable)
    unknown = {member: nearest(member, KNOWN_MEMBERS) for member in config.document if member not in KNOWN_MEMBERS}
    size = engine_size(workers=workers, memory_limit_bytes=memory_limit_bytes)
    facts: dict[str, Any] = {
        "config": str(config.path),
        "server": config.server_host,
        "hostname": config.hostname,
        "https": len(config.sites()),
        "ports": len(config.ports()),
        "workers": size.workers,
        "workers_source": "option or variable" if workers else size.processors.source,
        "memory_limit_bytes": size.memory_limit_bytes,
        "memory_source": "option or variable" if memory_limit_bytes else size.memory.source,
        "not_kept": closed.line() if closed is not None else "",
        "unknown": list(unknown),
        "problems": [{"code": one.code, "message": str(one), "hint": one.hint} for one in problems],
    }
    if as_json:
        show(facts, "", as_json=True)
    else:
        rows = [[name, escape(str(facts[name])), ""] for name in ("config", "server", "hostname", "https", "ports")]
        rows += [
            ["workers", str(size.workers), facts["workers_source"]],
            ["memory limit", size_text(size.memory_limit_bytes), facts["memory_source"]],
        ]
        print_table(["Fact", "Value", "Source"], rows)
    for member, hint in unknown.items():
        click.echo(f"spoke: {config.path}: unknown member {escape(repr(member))} is kept, not used; {hint}", err=True)
    if closed is not None:
        click.echo(f"spoke: changes of rules are not kept: {escape(closed.line())}", err=True)
    for error in problems:
        click.echo(f"spoke: {escape(error.line())}", err=True)
    return 1 if problems else 0


def _fault(step: Callable[[], object]) -> SpokesError | None:
    try:
        step()
    except SpokesError as error:
        return error
    return None
