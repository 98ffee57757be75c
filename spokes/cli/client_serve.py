"""`spoke start | http PORT | tcp PORT`: the verbs that stay and serve."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec

from spokes.cli.client_console import OneAddressConsole, status_console
from spokes.cli.client_limits import site_limits, udp_timeout_option
from spokes.cli.client_one_offs import config_nobody_runs, serve_one_off
from spokes.cli.client_options import (
    PORT,
    Settings,
    config_option,
    json_option,
    option,
    pass_settings,
    perform,
    resolver_option,
    size_options,
)
from spokes.cli.client_run import serve
from spokes.client.config import ClientConfig
from spokes.client.config_edit import HeldConfig
from spokes.client.operations import port_fault, site_fault
from spokes.client.webroots import usable_web_root
from spokes.errors import ConfigError
from spokes.wire.rules import Port, Site, check_destination

if TYPE_CHECKING:
    from spokes.client.app import App

Command = TypeVar("Command", bound=Callable[..., Any])


def serving_options(command: Command) -> Command:
    """What every verb that serves takes."""
    for add in (
        size_options,
        option("--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True),
        option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="warning",
               show_default=True),
        resolver_option,
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
    from spokes.client.configured_rules import ConfiguredRules  # the engine is loaded only by verbs that need it

    config = config_nobody_runs(settings.path)
    file = HeldConfig(config.path)
    serving["name_servers"] = settings.name_servers
    return serve(config, ConfiguredRules(file), status_console(), api_port=api_port, api_file=file, **serving)


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
    serving["name_servers"] = settings.name_servers
    return serve_one_off(config, lambda: site, console, serving)


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
        public_port = public_port or _public_port(config, settings)
        return rule()

    def remember(number: int) -> None:
        nonlocal public_port
        public_port = number

    def address(app: App) -> str:
        return f"{app.endpoint.host}:{public_port}"

    console = OneAddressConsole("address", address, lambda accepted: port_fault(accepted, public_port), as_json=as_json)
    serving["name_servers"] = settings.name_servers
    return serve_one_off(config, rule_of_our_own, console, serving, rule_of_running=rule, on_port=remember)


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


def _public_port(config: ClientConfig, settings: Settings) -> int:
    """A port of the tunnel, best one that leads nowhere yet; allocated and remembered where it has none."""
    ports = sorted(config.ports(), key=lambda port: bool(port.dst_port))
    return ports[0].port if ports else int(perform(settings, "tcp.allocate", {})["port"])
