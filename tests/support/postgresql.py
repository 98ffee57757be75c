"""A real PostgreSQL server for the tests: its own data, a Unix socket only, gone afterwards.

PostgreSQL refuses to run as root, so a root user's tests run it as `postgres`, the user Debian's package makes.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import psycopg

UNPRIVILEGED_USER = "postgres"
START_TIMEOUT_S = 60
PACKAGES = "run `packaging/system-packages.sh test` to install Debian's postgresql"

# Nothing here outlives the tests, so nothing is synced: tests kill the server's clients, never the machine.
CONFIGURATION = """
listen_addresses = ''
unix_socket_directories = '{directory}'
unix_socket_permissions = 0700
fsync = off
synchronous_commit = off
full_page_writes = off
max_connections = 100
shared_buffers = 32MB
"""


MEMORY = Path("/dev/shm")                # a database is copied and dropped for each test
MEMORY_BYTES_MIN = 1 << 30               # a container may have 64 MiB there
PREFIX = "spokes-pg-"                    # of a server's directory; the number of the process that began it follows


class PostgresqlMissingError(Exception):
    """The programs are not installed."""


def binaries() -> Path:
    """Directory of the newest initdb and pg_ctl that are installed."""
    found = [path for path in Path("/usr/lib/postgresql").glob("*/bin") if (path / "initdb").exists()]
    if found:
        return max(found, key=lambda path: float(path.parent.name))
    program = shutil.which("initdb")
    if program is None:
        raise PostgresqlMissingError(PACKAGES)
    return Path(program).resolve().parent


class Postgresql:
    """A running server; `create_database` answers the address of a new database."""

    def __init__(self, directory: Path, user: str) -> None:
        self.directory = directory
        self.user = user
        self._numbers = itertools.count(1)

    def url(self, database: str) -> str:
        return f"postgresql://{self.user}@/{database}?host={quote(str(self.directory), safe='')}"

    def create_database(self, template: str = "template0") -> str:
        """A copy of a database nobody is connected to; takes some tens of milliseconds."""
        name = f"test_{next(self._numbers)}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY file_copy')
        return self.url(name)

    def drop_database(self, url: str) -> None:
        name = psycopg.conninfo.conninfo_to_dict(url)["dbname"]
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def restart(self) -> None:
        """Cut every connection and start again, as an upgrade of the package does."""
        self._control("restart", "-m", "fast")

    def start(self) -> None:
        self._control("start")

    def stop(self) -> None:
        """Cut every connection; what was committed is kept for the next start."""
        self._control("stop", "-m", "fast")

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """It answers nothing, as before a disk that hangs; the kernel holds its connections."""
        pids = [int((self.directory / "data" / "postmaster.pid").read_text().splitlines()[0])]
        os.kill(pids[0], signal.SIGSTOP)                # first, so that it begets no more
        try:
            children = Path(f"/proc/{pids[0]}/task/{pids[0]}/children").read_text().split()
            for pid in map(int, children):
                os.kill(pid, signal.SIGSTOP)
                pids.append(pid)
            yield
        finally:
            for pid in reversed(pids):
                os.kill(pid, signal.SIGCONT)

    def discard(self) -> None:
        """Stop at once, if it still runs; the data is of no use to anyone any more."""
        if (self.directory / "data" / "postmaster.pid").exists():
            self._control("stop", "-m", "immediate")

    def _control(self, *arguments: str) -> None:
        # pg_ctl answers when the server is ready, or gone.
        run(
            binaries() / "pg_ctl", *arguments, "-D", self.directory / "data", "-l", self.directory / "log",
            "-t", str(START_TIMEOUT_S), "-s",
        )


def run(*command: str | Path) -> None:
    """Run a program of PostgreSQL's, as the unprivileged user where we are root."""
    arguments = [str(part) for part in command]
    if os.geteuid() == 0:
        arguments = ["runuser", "-u", UNPRIVILEGED_USER, "--", *arguments]
    done = subprocess.run(
        arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd="/",
        timeout=START_TIMEOUT_S * 2, check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{arguments} ended with {done.returncode}: {done.stdout}")


def _clear_away(place: Path) -> None:
    """What servers left whose tests were killed: the server, if it still runs, and its directory."""
    for directory in place.glob(f"{PREFIX}*-*"):
        owner = directory.name.removeprefix(PREFIX).partition("-")[0]
        if not owner.isdigit() or Path("/proc", owner).exists():
            continue
        with contextlib.suppress(OSError, ValueError):
            os.kill(int((directory / "data" / "postmaster.pid").read_text().splitlines()[0]), signal.SIGQUIT)
        shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def running() -> Iterator[Postgresql]:
    """A server for the length of the block; PostgresqlMissingError if it is not installed."""
    programs = binaries()
    user = UNPRIVILEGED_USER if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    # Directly under the system's temporary directory: a socket's path may be 107 bytes long at most.
    place = MEMORY if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= MEMORY_BYTES_MIN else None
    _clear_away(place or Path(tempfile.gettempdir()))
    with tempfile.TemporaryDirectory(prefix=f"{PREFIX}{os.getpid()}-", dir=place, ignore_cleanup_errors=True) as name:
        directory = Path(name)
        if os.geteuid() == 0:
            shutil.chown(directory, UNPRIVILEGED_USER)
        directory.chmod(0o700)
        run(
            programs / "initdb", "-D", directory / "data", "-U", user, "-A", "trust", "-E", "UTF8", "--locale=C",
            "--no-sync",
        )
        with (directory / "data" / "postgresql.conf").open("a") as file:
            file.write(CONFIGURATION.format(directory=directory))
        server = Postgresql(directory, user)
        server.start()
        try:
            yield server
        finally:
            server.discard()
