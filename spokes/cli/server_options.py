"""What the verbs of `spokes` share: options with their environment variables, and how settings are read."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from spokes.config import Given, ServerConfig, load_server_config
from spokes.control import CONTROL_SOCKET_NAME, call_control
from spokes.errors import ControlError, NoServerError
from spokes.store import Store

Command = TypeVar("Command", bound=Callable[..., Any])

# Every setting that has an option; SPOKES_… in the environment is the same word.
OPTION_OF_SETTING = {
    "data": "--data",
    "domain": "--domain",
    "store": "--store",
    "http": "--http",
    "https": "--https",
    "public_http_port": "--public-http-port",
    "public_https_port": "--public-https-port",
    "tcp_address": "--tcp-address",
    "tcp_ports": "--tcp-ports",
    "workers": "--workers",
    "memory_limit": "--memory-limit",
    "drain_timeout_s": "--drain-timeout",
    "removed_drain_s": "--removed-drain",
    "admin": "--admin",
    "log_format": "--log-format",
    "log_level": "--log-level",
}
_NUMBERS = {
    "workers": int, "public_http_port": int, "public_https_port": int,
    "drain_timeout_s": float, "removed_drain_s": float,
}  # fmt: skip


@dataclass
class Settings:
    """What was said on the command line or in the environment, before the verb or after it."""

    config: Path | None = None
    given: dict[str, Given] = field(default_factory=dict)

    def load(self) -> ServerConfig:
        return load_server_config(self.config, self.given)


pass_settings = click.make_pass_decorator(Settings, ensure=True)


def variable_of(option: str) -> str:
    return "SPOKES_" + option.removeprefix("--").upper().replace("-", "_")


def setting_option(key: str, help_text: str, *, metavar: str, multiple: bool = False) -> Callable[[Command], Command]:
    """An option for one setting; its value is checked with the file's, by the same words."""
    option = OPTION_OF_SETTING[key]

    def take(context: click.Context, parameter: click.Parameter, value: Any) -> None:
        if value is None or value == ():
            return
        source = context.get_parameter_source(parameter.name or "")
        origin = option if source is ParameterSource.COMMANDLINE else variable_of(option)
        settings = context.ensure_object(Settings)
        settings.given[key] = Given(_raw(key, value), origin)

    return click.option(
        option,
        key,
        metavar=metavar,
        multiple=multiple,
        envvar=variable_of(option),
        show_envvar=True,
        expose_value=False,
        callback=take,
        help=help_text,
    )


def _raw(key: str, value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    try:
        return _NUMBERS[key](value) if key in _NUMBERS else value
    except ValueError:
        return value  # the check of the setting says what is allowed


def config_option(command: Command) -> Command:
    """`--config FILE`, before or after the verb; the one nearest to the end wins."""

    def take(context: click.Context, parameter: click.Parameter, value: Path | None) -> None:
        settings = context.ensure_object(Settings)
        typed = context.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE
        if value is not None and (typed or settings.config is None):
            settings.config = value

    return click.option(
        "--config",
        type=click.Path(path_type=Path),
        metavar="FILE",
        envvar="SPOKES_CONFIG",
        show_envvar=True,
        expose_value=False,
        callback=take,
        help="Configuration file of the server.",
    )(command)


def store_options(command: Command) -> Command:
    """Where the server's data is: for every verb that reads or changes it."""
    for option in (
        setting_option("store", "Database, instead of SQLite in the data directory.", metavar="URL"),
        setting_option("data", "Data directory.", metavar="DIR"),
    ):
        command = option(command)
    return config_option(command)


def server_options(command: Command) -> Command:
    """Every setting of a server."""
    for option in (
        setting_option("log_level", "debug, info, warning or error.", metavar="LEVEL"),
        setting_option("log_format", "text or json.", metavar="FORMAT"),
        setting_option("admin", "Serve API and dashboard under the server's own name.", metavar="true|false"),
        setting_option("drain_timeout_s", "How long streams may go on after SIGTERM.", metavar="SECONDS"),
        setting_option(
            "removed_drain_s", "How long what visitors have open may go on where it was removed.", metavar="SECONDS"
        ),
        setting_option("memory_limit", "All buffers together, e.g. 512M.", metavar="SIZE"),
        setting_option("workers", "Threads of the engine; 0 = one for each CPU.", metavar="N"),
        setting_option("tcp_ports", "Range that TCP and UDP ports are allocated from.", metavar="BEGIN-END"),
        setting_option("tcp_address", "Address that those ports listen on.", metavar="ADDR"),
        setting_option("public_https_port", "Port that visitors know; 0 = as in --https.", metavar="PORT"),
        setting_option("public_http_port", "Port that visitors know; 0 = as in --http.", metavar="PORT"),
        setting_option("https", "Where TLS is served: visitors and links.", metavar="ADDR:PORT", multiple=True),
        setting_option("http", "Where plain HTTP is served.", metavar="ADDR:PORT", multiple=True),
        setting_option("domain", "The server's own name; tunnels get names under it.", metavar="NAME"),
    ):
        command = option(command)
    return store_options(command)


json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")


def open_store(config: ServerConfig) -> Store:
    """The store of the server's data directory, whether a server runs there or not. One that is not there is an error:
    a directory that was mistyped is no empty server."""
    return Store.open(config.store_url, create=False)


def tell_server(config: ServerConfig) -> None:
    """The store was changed: a server that runs here acts on it before we return; with none there is nobody to tell."""
    try:
        call_control(control_path(config), "changed")
    except NoServerError:
        return
    except ControlError as error:  # what was asked for is done and stays done
        click.echo(f"spokes: the running server does not know of it yet: {error.line()}", err=True)


def control_path(config: ServerConfig) -> Path:
    return config.data.absolute() / CONTROL_SOCKET_NAME


def print_json(document: Any) -> None:
    click.echo(json.dumps(document))


def time_text(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def size_text(size_bytes: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size_bytes < 1024:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.1f} TiB"
