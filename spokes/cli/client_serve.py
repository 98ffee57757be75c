"""`spoke start | http PORT | tcp PORT`: the verbs that stay and serve."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

import click

from spokes.cli.client_options import (
    PORT,
    Settings,
    config_option,
    json_option,
    option,
    pass_settings,
    perform,
)
from spokes.cli.entry import EXIT_INTERRUPTED
from spokes.client.config import ClientConfig
from spokes.client.config_edit import HeldConfig
from spokes.client.local_caller import LocalCaller
from spokes.client.operations import port_fault, site_fault
from spokes.client.webroots import usable_web_root
from spokes.errors import ConfigError, RemoteError, SpokesError
from spokes.log import escape, setup_logging
from spokes.outlet import outlet_of
from spokes.wire.messages import Accepted, Fault
from spokes.wire.rules import Port, Site, check_destination

if TYPE_CHECKING:
    from spokes.client.app import App, Console
    from spokes.client.health import Turn
    from spokes.client.rulebook import Rules

MIB = 1024 * 1024


Command = TypeVar("Command", bound=Callable[..., Any])


def serving_options(command: Command) -> Command:
    """What every verb that serves takes."""
    for add in (
        option("--workers", type=click.IntRange(0, 64), default=0, show_default="one for each CPU, at most 4"),
        option("--memory-limit", "memory_limit_mib", type=click.IntRange(16),
               show_default="a quarter of the memory it may use, at most 256",
               help="MiB for all buffers together."),
        option("--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True),
        option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="warning",
               show_default=True),
        config_option,
    ):  # fmt: skip
        command = add(command)
    return command


@click.command(epilog="Example: spoke start --api-port 4100")
@serving_options
@option("--api-port", type=click.IntRange(0, 65535), help="Port of the local API; 4100, or any free one.")
@pass_settings
def start(settings: Settings, /, api_port: int | None, **serving: Any) -> int:
    """Serve everything that is configured, for ever; reconnect by itself."""
    from spokes.client.rulebook import SavedRules  # the engine is loaded only by verbs that need it

    config = _config_nobody_runs(settings.path)
    file = HeldConfig(config.path)
    return _serve(config, SavedRules(file), _status_console(), api_port=api_port, api_file=file, **serving)


class ServeGroup(click.Group):
    """`spoke http 8080` and `spoke http add …` share a word: what is no verb is a port to serve."""

    def __init__(self, *, serve: click.Command, **attributes: Any) -> None:
        super().__init__(**attributes, context_settings={"ignore_unknown_options": True})
        self._serve = serve

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] in self.commands:
            return super().resolve_command(ctx, args)
        if not args[0].startswith("-") and not args[0].isdigit():
            ctx.fail(f"{args[0]!r} is no port and no command; commands: {', '.join(sorted(self.commands))}")
        return None, self._serve, args

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_usage(ctx.command_path, " ".join(self._serve.collect_usage_pieces(ctx)))
        formatter.write_usage(ctx.command_path, "COMMAND [ARGS]...", prefix="   or: ")

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self._serve.format_options(ctx, formatter)
        self.format_commands(ctx, formatter)


@click.command("http")
@click.argument("port", type=PORT, required=False)
@option("--destination", default="localhost", show_default=True, help="Host or address of the local service.")
@option("--webroot", metavar="DIR", help="Serve the files of this directory instead of a service; PORT is not needed.")
@json_option
@serving_options
@pass_settings
def _serve_http(
    settings: Settings, /, port: int | None, destination: str, webroot: str | None, as_json: bool, **serving: Any
) -> int:
    if port is None and not webroot:
        raise click.UsageError("missing PORT, the service's port; or --webroot, a directory")
    from spokes.client.rulebook import SavedRules

    config = _config_nobody_runs(settings.path)
    if not config.hostname:
        raise ConfigError(f"{config.path}: hostname is missing", hint="type: spoke configure")
    check_destination(destination)
    if webroot:
        site = Site(domain=config.hostname, web_root=usable_web_root(webroot))
    else:
        site = Site(domain=config.hostname, destination=destination, port=port or 0)
    console = OneAddressConsole("url", public_url, lambda accepted: site_fault(accepted, site), as_json=as_json)
    return _serve(config, SavedRules(HeldConfig(config.path), passing_sites=(site,)), console, **serving)


@click.command("tcp")
@click.argument("port", type=PORT)
@option("--destination", default="localhost", show_default=True, help="Host or address of the local service.")
@json_option
@serving_options
@pass_settings
def _serve_tcp(settings: Settings, /, port: int, destination: str, as_json: bool, **serving: Any) -> int:
    from spokes.client.rulebook import SavedRules

    check_destination(destination)
    config = _config_nobody_runs(settings.path)
    public_port = _public_port(config)
    rule = Port(port=public_port, destination=destination, dst_port=port)

    async def address(app: App) -> str:
        return f"{app.endpoint.host}:{public_port}"

    console = OneAddressConsole("address", address, lambda accepted: port_fault(accepted, public_port), as_json=as_json)
    return _serve(config, SavedRules(HeldConfig(config.path), passing_ports=(rule,)), console, **serving)


http = config_option(
    ServeGroup(
        name="http",
        serve=_serve_http,
        help="Serve a local HTTP service, or a directory, under the tunnel's own host name until Ctrl-C; or change the "
        "HTTP rules.",
        epilog="Example: spoke http 8080, or: spoke http --webroot ./public",
    )
)
tcp = config_option(
    ServeGroup(
        name="tcp",
        serve=_serve_tcp,
        help="Serve a local TCP service under a public port until Ctrl-C; or change the TCP rules.",
        epilog="Example: spoke tcp 22",
    )
)


async def public_url(app: App) -> str:
    """Where visitors reach the tunnel's own name. The server says it: something in front of it may translate ports."""
    assert app.ready is not None
    return next(iter(app.ready.urls), f"http://{app.ready.hostname}")


def _config_nobody_runs(path: Path) -> ClientConfig:
    """The configuration; refused while a client runs with it, which this command would end."""
    config = ClientConfig.load(path)
    running = LocalCaller.find(path)
    if running is not None:
        raise ConfigError(
            f"a client already runs with {path} (process {running.pid})",
            hint="it takes new rules from `spoke tunnel http add` and `tcp forward`; or end it first",
        )
    return config


def _public_port(config: ClientConfig) -> int:
    """A port of the tunnel, best one that leads nowhere yet; allocated and remembered where it has none."""
    ports = sorted(config.ports(), key=lambda port: bool(port.dst_port))
    return ports[0].port if ports else int(perform(config.path, "tcp.allocate", {})["port"])


class OneAddressConsole:
    """For `http` and `tcp`: the public address on a line of its own once it works, everything else on stderr."""

    def __init__(
        self,
        name: str,
        address: Callable[[App], Awaitable[str]],
        fault: Callable[[Accepted], Fault | None],
        *,
        as_json: bool,
    ) -> None:
        self._name = name
        self._address = address
        self._fault = fault
        self._as_json = as_json
        self._shown = False
        self._failed = False

    def connecting(self) -> None:
        if not self._failed:
            self._say("Connecting...")

    async def online(self, app: App) -> None:
        fault = self._fault(app.accepted)
        if fault is not None:
            raise RemoteError(fault.message, code=fault.code)
        if not self._shown:
            address = await self._address(app)
            outlet_of(sys.stdout).write((json.dumps({self._name: address}) if self._as_json else address) + "\n")
            self._shown = True
        self._failed = False
        self._say("Serving; Ctrl-C ends it.")

    def changed(self, app: App) -> None:
        """Its one rule never changes."""

    def turned(self, turns: Sequence[Turn]) -> None:
        for turn in turns:
            self._say(escape(turn.line()))

    def offline(self, error: SpokesError, wait_s: float) -> None:
        self._failed = True
        self._say(f"Not connected: {escape(error.line())}; next attempt in {wait_s:.1f} s")

    async def run(self, app: App) -> None:
        """Nothing to refresh."""

    def _say(self, text: str) -> None:
        outlet_of(sys.stderr).write(text + "\n")


def _write_log(text: str) -> None:
    """To whatever sys.stderr is at the moment: a live block takes it over, so that log lines appear above it."""
    stderr: TextIO = sys.stderr
    if stderr is sys.__stderr__:
        outlet_of(stderr).write(text)
    else:
        stderr.write(text)
        stderr.flush()


def _status_console() -> Console:
    from spokes.client.status import LiveConsole, PlainConsole, terminal_console

    terminal = terminal_console(sys.stdout)
    return LiveConsole(terminal) if terminal.is_terminal else PlainConsole(sys.stdout)


def _serve(
    config: ClientConfig,
    rules: Rules,
    console: Console,
    *,
    workers: int,
    memory_limit_mib: int | None,
    log_format: str,
    log_level: str,
    api_file: HeldConfig | None = None,
    api_port: int | None = None,
) -> int:
    from spokes.client.app import App
    from spokes.client.engine import serving_engine
    from spokes.client.links import Endpoint

    config.require_identity()
    setup_logging(log_format, log_level, write=_write_log)
    endpoint = Endpoint.of(config)

    async def run() -> int:
        engine = serving_engine(workers=workers, memory_limit_bytes=(memory_limit_mib or 0) * MIB)
        app = App(
            engine,
            endpoint=endpoint,
            key=config.key,
            rules=rules,
            console=console,
            removed_drain_s=config.removed_drain_s,
            reread=lambda: ClientConfig.load(config.path),
        )
        return await run_app(app, console, api_file, api_port)

    return asyncio.run(run())


async def run_app(app: App, console: Console, api_file: HeldConfig | None, api_port: int | None) -> int:
    """The client until a signal ends it: Ctrl-C at once, SIGTERM after the open streams had a while. SIGHUP makes it
    read its configuration again."""
    from spokes.client.local_api import LocalApi
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
    if api_file is not None:
        operations = Operations(api_file, ask=app.ask, apply=app.apply_rules)
        local_api = LocalApi(api_file.path, status=lambda: status_document(app), perform=operations.perform)
        await local_api.start(api_port)
    showing = asyncio.create_task(console.run(app))
    try:
        await app.run()
    finally:
        showing.cancel()
        await asyncio.gather(showing, return_exceptions=True)
        if local_api is not None:
            await local_api.stop()
    return code
