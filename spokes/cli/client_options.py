"""What the verbs of `spoke` share: options with their environment variables, output, and who performs a change."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from spokes.client.config import ClientConfig, find_path
from spokes.client.config_edit import ConfigFile
from spokes.client.local_caller import LocalCaller
from spokes.client.operations import NOT_CHECKED, NOT_SAVED, Operations, apply_nowhere
from spokes.config_values import MEMORY_LIMIT_BYTES_MIN, Address, parse_resolver, parse_size
from spokes.errors import ConfigError
from spokes.event_loop import run as run_loop
from spokes.log import escape

Json = dict[str, Any]
Command = TypeVar("Command", bound=Callable[..., Any])

TUNNEL_NAME_CHARS_MAX = 255  # docs/protocol.md, "Handshake"


class PortType(click.ParamType[int]):
    """A port number, refused in words that speak of ports."""

    name = "port"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value)
        if not (text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= 65535):
            self.fail(f"{text!r} is no port; ports are 1-65535", param, ctx)
        return int(text)


class TunnelNameType(click.ParamType[str]):
    name = "name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value)
        if len(text) > TUNNEL_NAME_CHARS_MAX:
            self.fail(f"{len(text)} characters; a name has at most {TUNNEL_NAME_CHARS_MAX}", param, ctx)
        return text


class MemoryLimitType(click.ParamType[int]):
    """A size as the server takes it; a bare number is MiB, as it always was here. 0 = from the machine."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value).strip()
        try:
            size_bytes = parse_size(text + "M" if text.isdigit() else text)
        except ValueError:
            size_bytes = -1
        if size_bytes and not MEMORY_LIMIT_BYTES_MIN <= size_bytes < 1 << 62:
            self.fail(f"{text!r}: a size of at least 16M, such as 64M or 1G; 0 = from the machine", param, ctx)
        return size_bytes


class ResolverType(click.ParamType[Address]):
    """The address of a name server."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Address:
        try:
            return value if isinstance(value, Address) else parse_resolver(str(value))
        except ValueError:
            self.fail(f"{value!r} is not ADDR or ADDR:PORT of a name server", param, ctx)


PORT = PortType()
RESOLVER = ResolverType()
MEMORY_LIMIT = MemoryLimitType()
TUNNEL_NAME = TunnelNameType()


@dataclass
class Settings:
    """Options of the program as a whole: of the verb and of the words before it."""

    config: str | None = None
    resolvers: tuple[Address, ...] = ()

    @property
    def path(self) -> Path:
        return find_path(self.config)

    def name_servers(self, config: ClientConfig) -> tuple[Address, ...]:
        """Those of `--resolver`, else the configuration's; none: the system's."""
        return self.resolvers or config.name_servers()


pass_settings = click.make_pass_decorator(Settings, ensure=True)


def option(name: str, *more: str, **attributes: Any) -> Callable[[Command], Command]:
    """An option that is also an environment variable: `--server-key` is SPOKE_SERVER_KEY."""
    variable = "SPOKE_" + name.removeprefix("--").upper().replace("-", "_")
    return click.option(name, *more, envvar=variable, show_envvar=True, **attributes)


def size_options(command: Command) -> Command:
    """How large the engine may become."""
    for add in (
        option("--workers", type=click.IntRange(0, 64), default=0, show_default="one for each CPU, at most 4"),
        option("--memory-limit", "memory_limit_bytes", type=MEMORY_LIMIT, metavar="SIZE", default="0",
               show_default="a quarter of the memory it may use, at most 256M",
               help="For all buffers together, such as 64M; a bare number is MiB."),
    ):  # fmt: skip
        command = add(command)
    return command


def config_option(command: Command) -> Command:
    """`--config FILE`, before or after the verb; the one nearest to the end wins."""

    def take(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
        settings = context.ensure_object(Settings)
        typed = context.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE
        if value is not None and (typed or settings.config is None):
            settings.config = value

    return option(
        "--config", metavar="FILE", expose_value=False, callback=take, help="Configuration file of the tunnel."
    )(command)


def resolver_option(command: Command) -> Command:
    """`--resolver ADDR[:PORT]`, of every verb that may connect to the server."""

    def take(context: click.Context, parameter: click.Parameter, value: tuple[Address, ...]) -> None:
        if value:
            context.ensure_object(Settings).resolvers = value

    return option(
        "--resolver", type=RESOLVER, multiple=True, metavar="ADDR[:PORT]", expose_value=False, callback=take,
        help="Name server to ask in place of the system's; may be repeated.",
    )(command)  # fmt: skip


json_option = option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")


def read_secret(text: str | None, file: Path | None) -> str | None:
    """A secret that came by value or by file; `-` reads standard input."""
    if text or file is None:
        return text or None
    try:
        content = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no text"
        raise ConfigError(f"cannot read {file}: {reason}", hint="check the path and its mode") from None
    if not content.strip():
        raise ConfigError(f"{file} is empty", hint="it should hold the token")
    return content.strip()


def show(document: Json, text: str, *, as_json: bool) -> None:
    """Facts for programs or for people."""
    click.echo(json.dumps(document) if as_json else text)


def perform(settings: Settings, op: str, args: Json) -> Json:
    """Change something: through the running client where there is one, else in the file (and at the server)."""
    path = settings.path
    ClientConfig.load(path)
    caller = LocalCaller.find(path)
    if caller is not None:
        result = caller.perform(op, args)
        if reason := result.pop(NOT_SAVED, ""):
            click.echo(f"spoke: in force until the client ends, and not kept: {escape(str(reason))}", err=True)
    else:
        operations = Operations(ConfigFile(path), ask=partial(ask_once, settings), apply=apply_nowhere)
        result = run_loop(operations.perform(op, args))
    if what := result.pop(NOT_CHECKED, ""):
        click.echo(f"spoke: not checked: {what}", err=True)
    return result


async def ask_once(settings: Settings, op: str, args: Json) -> Json:
    """One question to the server over a link of its own."""
    from spokes.client.control import control_session  # the engine is loaded only by verbs that need it
    from spokes.client.engine import control_engine
    from spokes.resolver import Resolver

    config = ClientConfig.load(settings.path)
    resolver = Resolver(servers=settings.name_servers(config))
    async with control_session(control_engine(), config, resolver=resolver) as session:
        return await session.request(op, args)
