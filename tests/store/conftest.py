"""Stores on both engines: every test of this directory that takes `store` or `store_url` runs twice."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from spokes.store import Store
from tests.support.postgresql import Postgresql, PostgresqlMissingError, running

ENGINES = ("sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql))


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Postgresql]:
    with contextlib.ExitStack() as stack:
        try:
            server = stack.enter_context(running())
        except PostgresqlMissingError as error:
            pytest.fail(str(error))
        yield server


@pytest.fixture(scope="session")
def postgresql_template(postgresql: Postgresql) -> str:
    """Name of a database with the present schema; copying it is quicker than making it."""
    url = postgresql.create_database()
    Store.open(url).close()
    return url.partition("@/")[2].partition("?")[0]


@pytest.fixture(params=ENGINES)
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Address of a database in which nothing was ever made."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'spokes.db'}"
    else:
        server: Postgresql = request.getfixturevalue("postgresql")
        url = server.create_database()
        yield url
        server.drop_database(url)


@pytest.fixture(params=ENGINES)
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Address of a database of one's own."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'spokes.db'}"
    else:
        server: Postgresql = request.getfixturevalue("postgresql")
        url = server.create_database(request.getfixturevalue("postgresql_template"))
        yield url
        server.drop_database(url)


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    with Store.open(store_url) as opened:
        yield opened


@pytest.fixture(params=ENGINES)
def cluster_stores(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[Store]]:
    """Three stores that know nothing of each other: each made anew, for a copy of one would have its identity."""
    with contextlib.ExitStack() as stack:
        urls = [f"sqlite:///{tmp_path / f'node{number}.db'}" for number in range(3)]
        if request.param != "sqlite":
            server: Postgresql = request.getfixturevalue("postgresql")
            urls = [server.create_database() for _ in urls]
            for url in urls:
                stack.callback(server.drop_database, url)
        yield [stack.enter_context(Store.open(url)) for url in urls]
