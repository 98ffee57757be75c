"""A serving client from its first line to its last: its engine, signals, local API, exit code."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from spokes import collector
from spokes.cli.client_console import write_log
from spokes.cli.entry import EXIT_INTERRUPTED
from spokes.client.config import ClientConfig
from spokes.client.config_edit import HeldConfig
from spokes.config_values import Address
from spokes.event_loop import run as run_loop
from spokes.log import setup_logging

if TYPE_CHECKING:
    from spokes.client.app import App
    from spokes.client.configured_rules import Rules
    from spokes.client.console import Console

YIELDED = -1  # in place of an exit code: `spoke start` takes over from here
YIELD = "one-off.yield"


def serve(
    config: ClientConfig,
    rules: Rules,
    console: Console,
    *,
    workers: int,
    memory_limit_bytes: int,
    log_format: str,
    log_level: str,
    name_servers: Callable[[ClientConfig], Sequence[Address]],
    api_file: HeldConfig | None = None,
    api_port: int | None = None,
    one_off: bool = False,
) -> int:
    from spokes.client.app import App
    from spokes.client.endpoint import Endpoint
    from spokes.client.engine import serving_engine
    from spokes.client.node_file import NodeFile
    from spokes.resolver import Resolver

    config.require_identity()
    setup_logging(log_format, log_level, write=write_log)
    endpoint = Endpoint.of(config)

    async def run() -> int:
        engine = serving_engine(workers=workers, memory_limit_bytes=memory_limit_bytes)
        app = App(
            engine,
            endpoint=endpoint,
            key=config.key,
            rules=rules,
            console=console,
            resolver=Resolver(servers=name_servers(config)),
            name_servers=name_servers,
            ha_mode=config.ha_mode,
            node_file=NodeFile(config.path),
            removed_drain_s=config.removed_drain_s,
            reread=lambda: ClientConfig.load(config.path),
        )
        return await run_app(app, console, api_file, api_port, rules=rules, one_off=one_off)

    return run_loop(run())


async def run_app(
    app: App,
    console: Console,
    api_file: HeldConfig | None,
    api_port: int | None,
    *,
    rules: Rules | None = None,
    one_off: bool = False,
) -> int:
    """Run the client until a signal ends it: Ctrl-C at once, SIGTERM after the open streams had a while to end, and a
    second one of either without waiting for anything. SIGHUP makes it read its configuration again."""
    from spokes.client.configured_rules import ConfiguredRules
    from spokes.client.local_api import LocalApi
    from spokes.client.one_offs import OneOffs
    from spokes.client.operations import Operations
    from spokes.client.status import status_document

    code = 0

    def interrupt() -> None:
        nonlocal code
        code = EXIT_INTERRUPTED
        app.stop(drain=False)

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, interrupt)
    loop.add_signal_handler(signal.SIGTERM, lambda: app.stop(drain=True))
    loop.add_signal_handler(signal.SIGHUP, app.reload)
    local_api: LocalApi | None = None
    one_offs: OneOffs | None = None
    if api_file is not None:
        operations = Operations(api_file, ask=app.ask, apply=app.rules.apply)

        async def perform_one(op: str, args: dict[str, Any]) -> dict[str, Any]:
            if op == YIELD and one_off:
                loop.call_soon(give_way)
                return {}
            return await operations.perform(op, args)

        def give_way() -> None:
            nonlocal code
            code = YIELDED
            app.stop(drain=False)

        async def allocate() -> int:
            return int((await operations.perform("tcp.allocate", {}))["port"])

        if isinstance(rules, ConfiguredRules):
            one_offs = OneOffs(rules, apply=app.rules.apply, allocate=allocate, address=app.public_address)
        local_api = LocalApi(
            api_file.path,
            status=lambda: {**status_document(app), "one_off": one_off},
            perform=perform_one,
            serve_one_off=one_offs.serve if one_offs is not None else None,
        )
        await local_api.start(api_port)
    collector.settle()
    try:
        await app.run()
    finally:
        if one_offs is not None:
            one_offs.closed = True
        if local_api is not None:
            await local_api.stop()
        if api_file is not None:
            await api_file.settled()
    return code
