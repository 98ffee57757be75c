"""`spoke http PORT` and `spoke tcp PORT` beside a client that runs already, before one, and after one."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from spokes.cli.client_console import OneAddressConsole
from spokes.cli.client_run import YIELD, YIELDED, serve
from spokes.cli.entry import EXIT_INTERRUPTED
from spokes.client.config import ClientConfig
from spokes.client.config_edit import HeldConfig
from spokes.client.local_caller import LocalCaller
from spokes.errors import ConfigError, NotFoundError, RemoteError, ReplacedError, UnreachableError
from spokes.event_loop import run as run_loop
from spokes.wire.rules import Port, Site

CLIENT_BACK_S = 2.0  # a client that ended may be started again by what supervises it
CLIENT_STARTS_S = 10.0


def serve_one_off(
    config: ClientConfig,
    own_rule: Callable[[], Site | Port],
    console: OneAddressConsole,
    serving: dict[str, Any],
    *,
    rule_of_running: Callable[[], Site | Port] | None = None,
    on_port: Callable[[int], None] = lambda _number: None,
) -> int:
    """Serve one rule: through the client that runs with this configuration, or as that client where none does. When
    the running one ends the next one takes over."""
    from spokes.client.configured_rules import ConfiguredRules

    path = config.path
    while True:
        running = LocalCaller.find(path)
        if running is not None:
            try:
                code = run_loop(_serve_through(running, (rule_of_running or own_rule)(), console, on_port))
            except RemoteError as error:
                if error.code == NotFoundError.code:  # of a version that serves nothing for others
                    raise _already_runs(path, running) from None
                raise
            if code is not None:
                return code
            if _client_comes(path, CLIENT_BACK_S + random.uniform(0.0, 1.0)):  # noqa: S311 (guards nothing)
                continue
        rule = own_rule()
        sites, ports = ((rule,), ()) if isinstance(rule, Site) else ((), (rule,))
        file = HeldConfig(path)
        rules = ConfiguredRules(file, temporary_sites=sites, temporary_ports=ports)
        try:
            code = serve(config, rules, console, api_file=file, api_port=0, one_off=True, **serving)
        except RemoteError as error:
            if error.code != ReplacedError.code or LocalCaller.find(path) is None:
                raise
            continue  # another command of this host began at the same moment
        if code != YIELDED:
            return code
        _client_comes(path, CLIENT_STARTS_S)


async def _serve_through(
    running: LocalCaller, rule: Site | Port, console: OneAddressConsole, on_port: Callable[[int], None]
) -> int | None:
    """The exit code; None when the running client is over and the rule with it."""
    from spokes.client.one_offs import serve_through

    def served(result: dict[str, Any]) -> None:
        on_port(int(result.get("port") or 0))
        console.served_through(str(result.get("address")), running.pid)

    member = "site" if isinstance(rule, Site) else "port"
    serving = asyncio.ensure_future(serve_through(running, {member: msgspec.to_builtins(rule)}, served))
    code: int | None = None

    def end(with_code: int) -> None:
        nonlocal code
        code = with_code
        serving.cancel()

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, end, EXIT_INTERRUPTED)
    loop.add_signal_handler(signal.SIGTERM, end, 0)
    with contextlib.suppress(asyncio.CancelledError, UnreachableError):
        await serving
    if code is None:
        console.client_gone()
    return code


def _client_comes(path: Path, within_s: float) -> bool:
    """Whether a client runs with this configuration, now or soon."""
    deadline = time.monotonic() + within_s
    while LocalCaller.find(path) is None:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def config_nobody_runs(path: Path) -> ClientConfig:
    """The configuration; refused while a client runs with it, which this command would end. One that serves a single
    rule makes room and goes on through this one."""
    config = ClientConfig.load(path)
    running = LocalCaller.find(path)
    if running is not None and _is_one_off(running):
        running.perform(YIELD, {})
        deadline = time.monotonic() + CLIENT_STARTS_S
        while (running := LocalCaller.find(path)) is not None and time.monotonic() < deadline:
            time.sleep(0.05)
    if running is not None:
        raise _already_runs(path, running)
    return config


def _is_one_off(running: LocalCaller) -> bool:
    with contextlib.suppress(UnreachableError, RemoteError):
        return bool(running.status().get("one_off"))
    return False


def _already_runs(path: Path, running: LocalCaller) -> ConfigError:
    return ConfigError(
        f"a client already runs with {path} (process {running.pid})",
        hint="it takes new rules from `spoke tunnel http add` and `tcp forward`; or end it first",
    )
