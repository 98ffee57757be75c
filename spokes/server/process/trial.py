"""The trial of a start: everything that a start would try, without a trace; bound addresses are released at once.

Owns: the list of what a start needs. A server that runs on the same data keeps its own addresses, which are not tried.
Fails: never; each fault is an error in the list, in the words and with the code that a start would end with.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from spokes.config import ServerConfig
from spokes.config_values import Address
from spokes.control import CONTROL_SOCKET_NAME, call_control
from spokes.errors import ConfigError, ControlError, DataDirError, SpokesError
from spokes.resolver import Resolver
from spokes.server.base.limits import memory_budget
from spokes.server.certificates.certificates import check_certificates
from spokes.server.notify.notifications import make_mailer
from spokes.server.routing.listeners import check_free, expand
from spokes.store import check_store


def try_start(config: ServerConfig) -> list[SpokesError]:
    """What would keep a server with this configuration from running."""
    faults = (error for step in _steps(config) for error in _fault(step))
    return list({error.line(): error for error in faults}.values())  # one folder may stand in the way of several


def _fault(step: Callable[[], object]) -> Iterator[SpokesError]:
    try:
        step()
    except SpokesError as error:
        yield error
    except OSError as error:  # a folder on the way into which this user may not look
        yield DataDirError(
            f"{error.filename}: {error.strerror}", hint="change its owner, or check as the server's user"
        )


def _steps(config: ServerConfig) -> Iterator[Callable[[], object]]:
    directory = config.data.absolute()
    yield lambda: _check_directory(directory)
    yield lambda: check_certificates(directory, config.domain) if directory.is_dir() else None
    yield lambda: check_store(config.store_url)
    running = _running_addresses(directory)
    for address in (*config.http, *config.https):
        for one in expand(address):
            if str(one) not in running:
                yield lambda one=one: check_free(one)  # type: ignore[misc]
    if config.tcp_address:
        yield lambda: check_free(Address(config.tcp_address, 0))
    if config.admin and config.metrics is not None and not running:
        yield lambda: check_free(config.metrics)  # type: ignore[arg-type]
    yield lambda: make_mailer(config, Resolver().addresses)
    yield lambda: _check_memory(config)


def _check_directory(directory: Path) -> None:
    """There and ours, or the nearest folder above lets us make it."""
    standing = next(path for path in (directory, *directory.parents) if path.exists())
    if not standing.is_dir():
        raise DataDirError(f"data directory {directory} cannot be made: {standing} is a file", hint="name another")
    if not os.access(standing, os.R_OK | os.W_OK | os.X_OK):
        raise DataDirError(
            f"data directory {directory} cannot be written by this user",
            hint="change its owner, name another with --data, or check as the server's user",
        )


def _check_memory(config: ServerConfig) -> None:
    budget = memory_budget(config)
    if budget.too_large():
        raise ConfigError(
            f"memory_limit is {budget.limit_bytes >> 20} MiB, more than {budget.machine.source} allows: "
            f"{int(budget.machine.value) >> 20} MiB",
            hint="choose a smaller one, or 0 to have it chosen",
        )


def _running_addresses(directory: Path) -> set[str]:
    """Where a server with this data directory listens now; none where none runs."""
    try:
        facts = call_control(directory / CONTROL_SOCKET_NAME, "status")
    except (ControlError, OSError):
        return set()
    return {*facts["http"], *facts["https"]}

