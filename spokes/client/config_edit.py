"""Changing the configuration file beside whoever else changes it: other `spoke` commands, and people with an editor.

Commands wait for each other. A person does not: what is in the file by the time of writing is brought together with our
change, member by member and rule by rule, and where both changed the same thing the file's stands.
A running client goes on where the file cannot be written (a read-only mount, a full disk): it keeps its change in
memory and says so once; each later change tries the file again, with what it holds by then. It waits for no command
either: what finds the file held is in memory, and in the file as soon as that is free.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import fcntl
import logging
import os
import time
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path
from typing import Any, Protocol

from spokes.client.config import ClientConfig
from spokes.client.rule_merge import merge_rules
from spokes.client.rule_parsing import Json, domain_key, portmap_key
from spokes.errors import ConfigError

log = logging.getLogger(__name__)

LOCK_PATIENCE_S = 5.0  # a holder does nothing but read and write a small file
_LOCK_RETRY_S = 0.01
_HELD_RETRY_S = 0.05  # of a running client …
_HELD_RETRY_LATE_S = 1.0  # … once it has told that the file is held
_EDIT_COUNT_MAX = 5  # nobody types that fast: a program fights with us

_RULE_KEYS: dict[str, Callable[[Json], Hashable]] = {
    "https": lambda rule: domain_key(str(rule.get("domain"))),
    "ports": lambda rule: str(rule.get("port")),
    "portmaps": portmap_key,
}


class _FileHeldError(ConfigError):
    """A `spoke` command is changing the file."""


class Editable(Protocol):
    """A configuration that operations change."""

    unsaved: str  # why the last change is not in the file; "" where it is

    def read(self) -> ClientConfig: ...
    def edit(self) -> contextlib.AbstractContextManager[ClientConfig]: ...
    async def settled(self) -> None:
        """Returns when no change waits for the file to be free, or has waited for too long."""

    def require_writable(self) -> None: ...


class ConfigFile:
    """For a command: what cannot be written is an error."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.unsaved = ""

    def read(self) -> ClientConfig:
        return ClientConfig.load(self._path)

    def edit(self) -> contextlib.AbstractContextManager[ClientConfig]:
        return edit_config(self._path)

    async def settled(self) -> None:
        """It waited."""

    def require_writable(self) -> None:
        self.read().require_writable()


class HeldConfig:
    """For a running client: the file, and in memory what could not be written to it. Used from its event loop alone."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.unsaved = ""
        self._told = False  # that the last change is not in the file
        self._held_since: float | None = None  # monotonic: since when a change waits for the file to be free
        self._retry: asyncio.TimerHandle | None = None
        self._free = asyncio.Event()
        self._free.set()
        self._config = ClientConfig.load(path)
        self._base = copy.deepcopy(self._config.document)  # of the file that `_config` was made from

    def read(self) -> ClientConfig:
        """Afresh: commands and people change the file. Where it cannot be taken the last good one goes on."""
        try:
            self._take(ClientConfig.load(self.path))
        except ConfigError as error:
            log.error("configuration not read again", extra={"reason": error.line()})
        return self._config

    @contextlib.contextmanager
    def edit(self) -> Iterator[ClientConfig]:
        trouble: ConfigError | None = None
        with contextlib.ExitStack() as locked:
            try:
                locked.enter_context(_lock(self.path, patience_s=0.0))
                self._take(ClientConfig.load(self.path))
            except ConfigError as error:  # damaged or half written: never overwritten
                trouble = error
            config = ClientConfig(self.path, copy.deepcopy(self._config.document), seen=self._config.seen)
            yield config
            self._config = config
            if trouble is None:
                try:
                    _write_back(config, self._base)
                    self._base = copy.deepcopy(config.document)
                except ConfigError as error:
                    trouble = error
        self._note(trouble)

    def require_writable(self) -> None:
        """It goes on without."""

    def _take(self, read: ClientConfig) -> None:
        """What the file holds now, with what could not be written to it on top."""
        base = copy.deepcopy(read.document)
        if self.unsaved:
            read = ClientConfig(
                self.path, merge_documents(self._base, self._config.document, read.document), seen=read.seen
            )
        self._config, self._base = read, base

    async def settled(self) -> None:
        await self._free.wait()

    def _save_again(self) -> None:
        with self.edit():
            pass  # with what is in memory

    def _note(self, trouble: ConfigError | None) -> None:
        self.unsaved = trouble.line() if trouble is not None else ""
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        if isinstance(trouble, _FileHeldError):
            now = time.monotonic()
            if self._held_since is None:
                self._held_since = now
                self._free.clear()
            late = now - self._held_since >= LOCK_PATIENCE_S
            wait_s = _HELD_RETRY_LATE_S if late else _HELD_RETRY_S
            self._retry = asyncio.get_running_loop().call_later(wait_s, self._save_again)
            if not late:
                return
        else:
            self._held_since = None
        self._free.set()
        if trouble is not None and not self._told:
            log.warning(
                "configuration not saved",
                extra={"reason": trouble.line(), "not_kept": "changes of rules, once this client ends"},
            )
        elif trouble is None and self._told:
            log.warning("configuration saved again")
        self._told = trouble is not None


@contextlib.contextmanager
def edit_config(path: Path) -> Iterator[ClientConfig]:
    """Read, change, write back; other `spoke` commands wait meanwhile, and no edit of a person is lost."""
    with _lock(path, patience_s=LOCK_PATIENCE_S):
        config = ClientConfig.load(path)
        base = copy.deepcopy(config.document)
        yield config
        _write_back(config, base)


def _write_back(config: ClientConfig, base: Json) -> None:
    """Save `config`, made from a file with `base`; it then holds what was written, somebody's newer edit included."""
    for _ in range(_EDIT_COUNT_MAX):
        if config.document == base or config.save(seen=config.seen):
            return
        newer = ClientConfig.load(config.path)
        merged = ClientConfig(config.path, merge_documents(base, config.document, newer.document))
        base, config.seen, config.document = newer.document, newer.seen, merged.document
    raise ConfigError(f"cannot write {config.path}: something else writes it again and again", hint="end one of them")


def merge_documents(base: Json, ours: Json, theirs: Json) -> Json:
    """Both made from `base`: what only one changed is as that one has it, what both changed is as in `theirs`."""
    merged: Json = {}
    for member in dict.fromkeys((*theirs, *ours)):
        before, mine, other = (document.get(member) for document in (base, ours, theirs))
        if member == "synced":
            kept = mine if mine != before else other  # the client's own note
        elif member in _RULE_KEYS and mine != before and other != before:
            kept = merge_rules(
                _RULE_KEYS[member], synced=_rules(before), local=_rules(mine), remote=_rules(other)
            )
        else:
            kept = mine if other == before else other
        if kept is not None or member in theirs:
            merged[member] = kept
    return merged


def _rules(value: Any) -> list[Json]:
    return [rule for rule in value or () if rule is not None]


@contextlib.contextmanager
def _lock(path: Path, *, patience_s: float) -> Iterator[None]:
    """On the folder: the file itself is replaced while we hold it. A folder that cannot be read is not locked."""
    try:
        folder = os.open(Path(os.path.realpath(path)).parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        yield
        return
    except OSError:
        raise ConfigError(f"no configuration at {path}", hint="type: spoke configure") from None
    try:
        _take_lock(folder, path, patience_s)
        yield
    finally:
        os.close(folder)


def _take_lock(folder: int, path: Path, patience_s: float) -> None:
    deadline = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                words = f"another `spoke` command holds {path}"
                raise _FileHeldError(words, hint="wait for it, or end it") from None
            time.sleep(_LOCK_RETRY_S)
        except OSError:  # a file system without locks
            return
