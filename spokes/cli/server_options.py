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

_STORE_SETTINGS = ("store", "data")  # of every verb that reads the store


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


def setting_option(name: str, help_text: str = "") -> Callable[[Command], Command]:
    """An option for one setting; its value is checked with the file's, by the same words. `help_text`: where a verb
    uses the setting for something narrower."""
    setting = SETTINGS[name]

    def take(context: click.Context, parameter: click.Parameter, value: Any) -> None:
        if value is None or value == ():
            return
        source = context.get_parameter_source(parameter.name or "")
        origin = setting.option if source is ParameterSource.COMMANDLINE else setting.variable
        raw = list(value) if isinstance(value, tuple) else setting.of_text(value)
        context.ensure_object(Settings).given[setting.name] = Given(raw, origin)

    return click.option(
        setting.option,
        setting.name,
        metavar=f"[{setting.metavar}]" if setting.is_switch else setting.metavar,
        is_flag=False,
        flag_value="true" if setting.is_switch else None,
        multiple=setting.is_list,
        envvar=setting.variable,
        show_envvar=True,
        expose_value=False,
        callback=take,
        help=help_text or setting.help,
    )


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
    for name in _STORE_SETTINGS:
        command = setting_option(name)(command)
    return config_option(command)


def server_options(command: Command) -> Command:
    """Every setting of a server."""
    for name in reversed(SETTINGS):
        if name not in _STORE_SETTINGS:
            command = setting_option(name)(command)
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
