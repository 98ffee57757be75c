"""`spokes backup`, `restore` and `db copy`: write the whole store to a file, restore it, copy it elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType

import click
from rich.console import Console

from spokes.cli.admin_shell import changing, say, verb
from spokes.cli.server_options import Settings, print_json, size_text
from spokes.config import ServerConfig
from spokes.errors import StoreError
from spokes.server.base.datadir import LOCK_NAME, DataLock, prepare_directory
from spokes.store.backup import backup as write_backup
from spokes.store.backup import restore as read_backup
from spokes.store.copy import copy_store

_SQLITE = "sqlite:///"
_POSTGRESQL = ("postgresql://", "postgres://")


class Copying:
    """On a terminal a line that says which table is copied and how far; nothing in a pipe."""

    def __init__(self, what: str) -> None:
        self._status = Console(stderr=True).status(what)
        self._what = what

    def __call__(self, table: str, row_count: int) -> None:
        self._status.update(f"{self._what}: {table}, {row_count} rows")

    def __enter__(self) -> Copying:
        self._status.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._status.stop()


@click.command(epilog="Example: spokes backup /var/backups/spokes-monday.db")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@verb
def backup(settings: Settings, file: Path, force: bool, as_json: bool) -> None:
    """Write everything that is stored to one file, while the server runs or not.

    It holds secrets, and only its owner may read it. Of the data directory it holds the database alone: keep link.key
    too, which clients pin.
    """
    config = settings.load()
    if file.is_dir():
        raise StoreError(f"{file} is a directory", hint="name a file in it")
    if file.exists() and not force:
        raise StoreError(f"{file} exists", hint="name another file, or replace it with --force")
    with Copying("Writing the backup") as progress:
        size_bytes = write_backup(config.store_url, file, progress)
    with changing(settings) as shell:
        shell.store.audit.note("store.backup", "store", detail={"file": str(file.absolute())})
    if as_json:
        print_json({"file": str(file), "bytes": size_bytes})
    else:
        say(f"Backup written: {file}, {size_text(size_bytes)}")
        say(f"Keep {config.data.absolute() / 'link.key'} beside it: clients pin that key")


@click.command(epilog="Example: spokes restore /var/backups/spokes-monday.db --data /var/lib/spokes")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Replace what the database holds.")
@verb
def restore(settings: Settings, file: Path, force: bool, as_json: bool) -> None:
    """Replace what the database holds by a backup, wholly or not at all. No server may run on it.

    People and programs sign in again, and what waited to be sent to webhooks when the backup was made is not sent.
    """
    config = settings.load()
    if not file.is_file():  # before a data directory is made for it
        raise StoreError(f"there is no backup {file}", hint="check its path")
    with _locked(prepare_directory(config.data)), Copying("Restoring") as progress:
        counts = read_backup(file, config.store_url, force, progress)
    with changing(settings) as shell:
        shell.store.audit.note("store.restore", "store", detail={"file": str(file.absolute())})
    _tell("Restored", counts, as_json=as_json)


@click.group(epilog="Example: spokes db copy /var/lib/spokes/spokes.db postgresql://spokes@db.example.net/spokes")
def db() -> None:
    """The database that everything is stored in."""


@db.command("copy", epilog="Example: spokes db copy /var/lib/spokes/spokes.db postgresql://spokes@db.example.net/spokes")
@click.argument("source")
@click.argument("target")
@verb
def copy(settings: Settings, source: str, target: str, as_json: bool) -> None:
    """Copy everything from one database to an empty other one: a path of SQLite's, or postgresql://….

    Stop the server first; what it writes meanwhile is not copied. A password comes from PGPASSWORD or ~/.pgpass, never
    from the command line.
    """
    config = settings.load()
    with ExitStack() as locks:
        for directory in sorted({_directory_of(url, config) for url in (source, target)}):
            if (directory / LOCK_NAME).exists():
                locks.enter_context(_locked(directory))
        with Copying("Copying") as progress:
            counts = copy_store(source, target, progress)
    _tell("Copied", counts, as_json=as_json)
    if not as_json:
        say("A server uses the copy with --store or the setting `store`")


# --- below ---------------------------------------------------------------------------------------------------------


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """No server runs in `directory` meanwhile."""
    lock = DataLock(directory)
    try:
        yield
    finally:
        lock.close()


def _directory_of(url: str, config: ServerConfig) -> Path:
    """The data directory whose server may use this database; with PostgreSQL the one that our configuration knows."""
    if url.startswith(_POSTGRESQL):
        return config.data.absolute()
    return Path(url.removeprefix(_SQLITE)).absolute().parent


def _tell(done: str, counts: dict[str, int], *, as_json: bool) -> None:
    if as_json:
        print_json({"tables": counts})
        return
    whole = ", ".join(f"{count} {table}" for table, count in counts.items() if count)
    say(f"{done}: {whole or 'nothing'}")
