"""The surroundings of administrative verbs: the open store, the name of who types, and the running server if any.

The verbs do what the Admin API does, over the same store and handlers, with an administrator's rights: who may read the
data directory may do everything. With `--json` they print the API's own objects.
"""

from __future__ import annotations

import os
import pwd
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import click
import msgspec

from spokes.admin.context import EVERY_SCOPE, Admin, Caller, CallerKind, Role
from spokes.cli.server_options import (
    Settings,
    control_path,
    json_option,
    open_store,
    pass_settings,
    print_json,
    store_options,
    tell_server,
)
from spokes.cli.table import time_text
from spokes.config import ServerConfig
from spokes.config_values import PortRange, parse_port_range
from spokes.control import Control
from spokes.errors import NoServerError, NotFoundError
from spokes.ids import ZERO_UID, canonical_host, is_uid
from spokes.log import escape
from spokes.model.operation import Operation
from spokes.store import Store, Tunnel, TunnelState, User

R = TypeVar("R")

SYSTEM = "system"                        # who owns what is no user's


class _ToldLater(Control):
    """The running server is told once, when the verb is done."""

    def changed(self) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class Shell:
    """An open store and its surroundings, for one verb."""

    config: ServerConfig
    store: Store
    admin: Admin
    caller: Caller

    def perform(self, operation: Operation[R]) -> R:
        """Performs an operation on behalf of who types."""
        return self.admin.perform(self.caller, operation)

    def ask_server(self) -> dict[str, Any] | None:
        """Returns the status of a running server; None if none runs. Its options may differ from our configuration."""
        try:
            facts: dict[str, Any] = self.admin.control.call("status")
        except NoServerError:
            return None
        return facts

    def domain(self) -> str:
        """The name that automatic host names lie under."""
        facts = self.ask_server()
        return str(facts["domain"]) if facts else self.config.domain

    def tcp_ports(self) -> PortRange:
        facts = self.ask_server()
        return parse_port_range(facts["tcp_ports"]) if facts else self.config.tcp_ports

    def user(self, text: str) -> User:
        """By id or e-mail address."""
        try:
            user = self.store.users.find_by_email(text) if "@" in text else self.store.users.get(text.lower())
        except NotFoundError:
            user = None
        if user is None:
            raise NotFoundError("unknown user", hint="`spokes user list` shows ids and e-mail addresses")
        return user

    def owners(self, uids: Iterable[str]) -> dict[str, str]:
        """What people call the owners with these ids: e-mail address, else name, else id."""
        wanted = set(uids)
        names = {one.uid: one.email or one.fullname or one.uid for one in self.store.users.get_many(wanted)}
        return {uid: names.get(uid, SYSTEM if uid == ZERO_UID else uid) for uid in wanted}

    def tunnel(self, text: str) -> Tunnel:
        """By id or host name; a deleted one is unknown."""
        if is_uid(text.lower()):
            found = [self.store.tunnels.get(text.lower())]
        else:
            host = canonical_host(text)
            tunnels = self.store.tunnels
            found = [one for one in tunnels.get_many(tunnels.search(host)) if one.hostname == host]
        for tunnel in found:
            if tunnel.state != TunnelState.DELETED:
                return tunnel
        raise NotFoundError("unknown tunnel", hint="`spokes tunnel list` shows ids and host names")


@contextmanager
def reading(settings: Settings) -> Iterator[Shell]:
    """For a verb that changes nothing."""
    with _shell(settings) as shell:
        yield shell


@contextmanager
def _shell(settings: Settings) -> Iterator[Shell]:
    config = settings.load()
    with open_store(config) as store:
        admin = Admin(
            store=store, control=_ToldLater(control_path(config)), domain=config.domain, tcp_ports=config.tcp_ports
        )
        caller = Caller(kind=CallerKind.SHELL, name=login_name(), role=Role.ADMIN, scopes=EVERY_SCOPE)
        yield Shell(config, store, admin, caller)


@contextmanager
def changing(settings: Settings) -> Iterator[Shell]:
    """For a verb that changes the store: events name who typed it, and a running server knows when it returns."""
    with _shell(settings) as shell:
        with shell.store.audit.acting(shell.caller.principal()):
            yield shell
        tell_server(shell.config)


def login_name() -> str:
    """Who logged in on this terminal, also behind sudo; without one, whom this process belongs to."""
    try:
        return os.getlogin()
    except OSError:
        pass
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def verb(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of every verb here. The function gets the settings, and `as_json`."""
    return json_option(store_options(pass_settings(command)))


yes_option = click.option("--yes", is_flag=True, help="Do not ask.")


def confirm(question: str, *, yes: bool) -> None:
    """For what cannot be undone; a script has to say --yes."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("this cannot be undone: say --yes")
    click.confirm(escape(question), abort=True, err=True)


def say(text: str) -> None:
    """One line for people; what somebody else chose of it is escaped."""
    click.echo(escape(text))


def plain(thing: Any) -> Any:
    """An object of the Admin API as it is on the wire."""
    return msgspec.to_builtins(thing)


def print_object(thing: Any) -> None:
    print_json(plain(thing))


def print_result(result: Any, text: str, *, as_json: bool) -> None:
    """Print what a verb did: as JSON the result, which is an object of the API or a dict, else one line for people."""
    if as_json:
        print_object(result)
    else:
        say(text)


def moment(unix_s: float | None) -> str:
    """For tables: `-` for a moment that never was."""
    return time_text(unix_s) if unix_s else "-"


def yes_no(value: bool) -> str:
    return "yes" if value else "no"
