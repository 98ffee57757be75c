"""`spoke start | http PORT | tcp PORT`: the verbs that stay and serve."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

import click
import msgspec

from spokes import collector
from spokes.cli.client_limits import site_limits, udp_timeout_option
from spokes.cli.client_options import (
    PORT,
    Settings,
    config_option,
    json_option,
    option,
    pass_settings,
    perform,
    size_options,
)
from spokes.cli.entry import EXIT_INTERRUPTED
from spokes.cli.loop import run as run_loop
from spokes.client.config import ClientConfig
from spokes.client.config_edit import HeldConfig
from spokes.client.local_caller import LocalCaller
from spokes.client.operations import port_fault, site_fault
from spokes.client.webroots import usable_web_root
from spokes.errors import ConfigError, NotFoundError, RemoteError, ReplacedError, SpokesError, UnreachableError
from spokes.log import escape, setup_logging
from spokes.outlet import outlet_of
from spokes.wire.messages import Accepted, Fault
from spokes.wire.rules import Port, Site, check_destination

if TYPE_CHECKING:
    from spokes.client.app import App, Console
    from spokes.client.health import Turn
    from spokes.client.rulebook import Rules

CLIENT_BACK_S = 2.0  # a client that ended may be started again by what supervises it
CLIENT_STARTS_S = 10.0
YIELDED = -1  # in place of an exit code: `spoke start` takes over from here
YIELD = "one-off.yield"


Command = TypeVar("Command", bound=Callable[..., Any])


def serving_options(command: Command) -> Command:
    """What every verb that serves takes."""
    for add in (
        size_options,
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


class SharedWordContext(click.Context):
    """Of a command that is typed by its group's word alone."""

    @property
    def command_path(self) -> str:
        return self.parent.command_path if self.parent is not None else super().command_path


class ServeGroup(click.Group):
    """`spoke http 8080` and `spoke http add …` share a word: what is no verb is a port to serve."""

    def __init__(self, *, serve: click.Command, **attributes: Any) -> None:
        super().__init__(**attributes, context_settings={"ignore_unknown_options": True})
        self._serve = serve
        self._serve.context_class = SharedWordContext

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
@site_limits
@json_option
@serving_options
@pass_settings
def _serve_http(
    settings: Settings,
    /,
    port: int | None,
    destination: str,
    webroot: str | None,
    as_json: bool,
    response_timeout: int,
    max_body: int,
    max_header_line: int,
    **serving: Any,
) -> int:
    if port is None and not webroot:
        raise click.UsageError("missing PORT, the service's port; or --webroot, a directory")
    config = ClientConfig.load(settings.path)
    if not config.hostname:
        raise ConfigError(f"{config.path}: hostname is missing", hint="type: spoke configure")
    check_destination(destination)
    if webroot:
        site = Site(domain=config.hostname, web_root=usable_web_root(webroot))
    else:
        site = Site(domain=config.hostname, destination=destination, port=port or 0)
    site = msgspec.structs.replace(
        site, response_timeout=response_timeout, max_body=max_body, max_header_line=max_header_line
    )
    console = OneAddressConsole("url", public_url, lambda accepted: site_fault(accepted, site), as_json=as_json)
    return _serve_one_off(config, lambda: site, console, serving)


@click.command("tcp")
@click.argument("port", type=PORT)
@option("--destination", default="localhost", show_default=True, help="Host or address of the local service.")
@udp_timeout_option
@json_option
@serving_options
@pass_settings
def _serve_tcp(
    settings: Settings, /, port: int, destination: str, udp_timeout: int, as_json: bool, **serving: Any
) -> int:
    check_destination(destination)
    config = ClientConfig.load(settings.path)
    public_port = 0  # whichever it gets first

    def rule() -> Port:
        return Port(port=public_port, destination=destination, dst_port=port, udp_timeout=udp_timeout)

    def rule_of_our_own() -> Port:
        nonlocal public_port
        public_port = public_port or _public_port(config)
        return rule()

    def remember(number: int) -> None:
        nonlocal public_port
        public_port = number

    def address(app: App) -> str:
        return f"{app.endpoint.host}:{public_port}"

    console = OneAddressConsole("address", address, lambda accepted: port_fault(accepted, public_port), as_json=as_json)
    return _serve_one_off(config, rule_of_our_own, console, serving, lent_rule=rule, on_port=remember)


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


def public_url(app: App) -> str:
    return app.public_url()


def _serve_one_off(
    config: ClientConfig,
    own_rule: Callable[[], Site | Port],
    console: OneAddressConsole,
    serving: dict[str, Any],
    *,
    lent_rule: Callable[[], Site | Port] | None = None,
    on_port: Callable[[int], None] = lambda _number: None,
) -> int:
    """Serve one rule: through the client that runs with this configuration, or as that client where none does. When
    the running one ends the next one takes over."""
    from spokes.client.rulebook import SavedRules

    path = config.path
    while True:
        running = LocalCaller.find(path)
        if running is not None:
            try:
                code = run_loop(_serve_through(running, (lent_rule or own_rule)(), console, on_port))
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
        rules = SavedRules(file, passing_sites=sites, passing_ports=ports)
        try:
            code = _serve(config, rules, console, api_file=file, api_port=0, one_off=True, **serving)
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
    from spokes.client.one_offs import borrow

    def served(result: dict[str, Any]) -> None:
        on_port(int(result.get("port") or 0))
        console.served_through(str(result.get("address")), running.pid)

    member = "site" if isinstance(rule, Site) else "port"
    borrowing = asyncio.ensure_future(borrow(running, {member: msgspec.to_builtins(rule)}, served))
    code: int | None = None

    def end(with_code: int) -> None:
        nonlocal code
        code = with_code
        borrowing.cancel()

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, end, EXIT_INTERRUPTED)
    loop.add_signal_handler(signal.SIGTERM, end, 0)
    with contextlib.suppress(asyncio.CancelledError, UnreachableError):
        await borrowing
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


def _config_nobody_runs(path: Path) -> ClientConfig:
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


def _public_port(config: ClientConfig) -> int:
    """A port of the tunnel, best one that leads nowhere yet; allocated and remembered where it has none."""
    ports = sorted(config.ports(), key=lambda port: bool(port.dst_port))
    return ports[0].port if ports else int(perform(config.path, "tcp.allocate", {})["port"])


class OneAddressConsole:
    """For `http` and `tcp`: the public address on a line of its own once it works, everything else on stderr."""

    def __init__(
        self,
        name: str,
        address: Callable[[App], str],
        fault: Callable[[Accepted], Fault | None],
        *,
        as_json: bool,
    ) -> None:
        self._name = name
        self._address = address
        self._fault = fault
        self._as_json = as_json
        self._shown = False
        self._address_told = ""
        self._failed = False

    def connecting(self) -> None:
        if not self._failed:
            self._say("Connecting...")

    async def online(self, app: App) -> None:
        fault = self._fault(app.accepted)
        if fault is not None:
            raise RemoteError(fault.message, code=fault.code)
        self._show(self._address(app))
        self._tell_other(app)
        self._failed = False
        self._say("Serving; Ctrl-C ends it.")

    def served_through(self, address: str, pid: int) -> None:
        """The client that runs already serves it."""
        self._show(address)
        self._say(f"Serving through the client that runs already (process {pid}); Ctrl-C ends it.")

    def client_gone(self) -> None:
        self._say("The running client is over.")

    def _show(self, address: str) -> None:
        if not self._shown:
            outlet_of(sys.stdout).write((json.dumps({self._name: address}) if self._as_json else address) + "\n")
            self._shown, self._address_told = True, address

    def changed(self, app: App) -> None:
        """Its one rule never changes, but its address may."""
        self._tell_other(app)

    def _tell_other(self, app: App) -> None:
        address = self._address(app)
        if address != self._address_told:
            self._address_told = address
            self._say(f"Visitors reach it at {address} now.")

    def delayed(self, app: App, error: SpokesError) -> None:
        self._say(escape(error.line()))

    def turned(self, turns: Sequence[Turn]) -> None:
        for turn in turns:
            self._say(escape(turn.line()))

    def offline(self, error: SpokesError, wait_s: float) -> None:
        self._failed = True
        self._say(f"Not connected: {escape(error.line())}; next attempt in {wait_s:.1f} s")

    async def run(self, app: App) -> None:
        """Nothing changes by itself."""
        await asyncio.Event().wait()

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
    memory_limit_bytes: int,
    log_format: str,
    log_level: str,
    api_file: HeldConfig | None = None,
    api_port: int | None = None,
    one_off: bool = False,
) -> int:
    from spokes.client.app import App
    from spokes.client.engine import serving_engine
    from spokes.client.links import Endpoint

    config.require_identity()
    setup_logging(log_format, log_level, write=_write_log)
    endpoint = Endpoint.of(config)

    async def run() -> int:
        engine = serving_engine(workers=workers, memory_limit_bytes=memory_limit_bytes)
        app = App(
            engine,
            endpoint=endpoint,
            key=config.key,
            rules=rules,
            console=console,
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
    """The client until a signal ends it: Ctrl-C at once, SIGTERM after the open streams had a while. SIGHUP makes it
    read its configuration again."""
    from spokes.client.local_api import LocalApi
    from spokes.client.one_offs import OneOffs
    from spokes.client.operations import Operations
    from spokes.client.rulebook import SavedRules
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
        operations = Operations(api_file, ask=app.ask, apply=app.apply_rules)

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

        if isinstance(rules, SavedRules):
            one_offs = OneOffs(rules, apply=app.apply_rules, allocate=allocate, address=app.public_address)
        local_api = LocalApi(
            api_file.path,
            status=lambda: {**status_document(app), "one_off": one_off},
            perform=perform_one,
            lend=one_offs.lend if one_offs is not None else None,
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
