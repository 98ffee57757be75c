"""What the verbs of `spokes` share: options with their environment variables, and how settings are read."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from spokes.config import SETTINGS, Given, ServerConfig, given_settings, load_server_config
from spokes.control import CONTROL_SOCKET_NAME, call_control
from spokes.errors import ControlError, NoServerError
from spokes.store import Store

Command = TypeVar("Command", bound=Callable[..., Any])

def _option_of(key: str) -> str:
    """The setting's word without the unit of a duration: drain_timeout_s is --drain-timeout."""
    word = key if key.endswith("_per_s") else key.removesuffix("_s")
    return "--" + word.replace("_", "-")


# Every setting has an option; SPOKES_… in the environment is the same word.
OPTION_OF_SETTING = {key: _option_of(key) for key in SETTINGS}
_NUMBERS = {key: setting.raw_type for key, setting in SETTINGS.items() if setting.raw_type in (int, float)}
_LISTS = {key for key, setting in SETTINGS.items() if "list" in str(setting.raw_type)}

_STORE_SETTINGS = ("data", "store")  # of every verb that reads the store
_WORDS = {
    "log_level": ("debug, info, warning or error.", "LEVEL"),
    "log_format": ("text or json.", "FORMAT"),
    "admin": ("Serve the administration under the server's own name.", "true|false"),
    "drain_timeout_s": ("How long streams may go on after SIGTERM.", "SECONDS"),
    "removed_drain_s": ("How long what visitors have open may go on where it was removed.", "SECONDS"),
    "memory_limit": ("All buffers together, e.g. 512M.", "SIZE"),
    "workers": ("Threads of the engine; 0 = one for each CPU.", "N"),
    "tcp_ports": ("Range that TCP and UDP ports are allocated from.", "BEGIN-END"),
    "tcp_address": ("Address that those ports listen on.", "ADDR"),
    "public_https_port": ("Port that visitors know; 0 = as in --https.", "PORT"),
    "public_http_port": ("Port that visitors know; 0 = as in --http.", "PORT"),
    "https": ("Where TLS is served: visitors and links.", "ADDR:PORT"),
    "http": ("Where plain HTTP is served.", "ADDR:PORT"),
    "domain": ("The server's own name; tunnels get names under it.", "NAME"),
}


@dataclass
class Settings:
    """What was said on the command line or in the environment, before the verb or after it."""

    config: Path | None = None
    given: dict[str, Given] = field(default_factory=dict)

    def load(self) -> ServerConfig:
        return load_server_config(self.config, self.given)

    def origins(self) -> dict[str, str]:
        """Where each setting comes from: file and line, variable, option; `default` for the others."""
        given = given_settings(self.config, self.given)
        return {key: given[key].origin if key in given else "default" for key in SETTINGS}


pass_settings = click.make_pass_decorator(Settings, ensure=True)


def variable_of(option: str) -> str:
    return "SPOKES_" + option.removeprefix("--").upper().replace("-", "_")


def setting_option(key: str, help_text: str, *, metavar: str) -> Callable[[Command], Command]:
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
        multiple=key in _LISTS,
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
    """Every setting of a server; those without words of their own here are told by what they may be."""
    for key in reversed(list(SETTINGS)):
        if key not in _STORE_SETTINGS:
            words, metavar = _WORDS.get(key, (f"Setting {key}: {SETTINGS[key].allowed}.", "VALUE"))
            command = setting_option(key, words, metavar=metavar)(command)
    return store_options(command)


json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")


def open_store(config: ServerConfig) -> Store:
    """The store of the server's data directory, whether a server runs there or not. One that is not there is an error:
    a directory that was mistyped is no empty server."""
    store = Store.open(config.store_url, create=False)
    store.settings.tunnels_per_user_max = config.tunnels_per_user_max
    return store


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


def size_text(size_bytes: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size_bytes < 1024:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.1f} TiB"
