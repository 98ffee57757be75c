"""A pair of engines for every test that asks for one; nothing may be left in them afterwards."""

from __future__ import annotations

import gc
import socket
from collections.abc import Callable, Iterator

import pytest
from spokes._fastpath.hooks.flow_hooks import refused_steps
from spokes._fastpath.hooks.route_hooks import live_sites

from tests.support.engines import Pair, engine_pair
from tests.support.http_wire import Wire


@pytest.fixture(autouse=True)
def every_target_is_released() -> Iterator[None]:
    """Upstreams and directories are counted by those who hold them: tables, conns, Python. None may be left."""
    before = live_sites()
    yield
    if live_sites() > before:
        gc.collect()  # costs a fifth of a second, which most tests need not spend
    assert live_sites() <= before


@pytest.fixture(autouse=True)
def every_step_of_an_exchange_is_allowed() -> Iterator[None]:
    """The state table of exchanges refuses what it does not know: a test that comes to such a step fails."""
    yield
    assert refused_steps() == 0


@pytest.fixture
def pair() -> Iterator[Pair]:
    with engine_pair() as joined:
        yield joined
        joined.assert_idle()


@pytest.fixture
def visit(pair: Pair) -> Iterator[Callable[[], Wire]]:
    """Connects a visitor to the HTTP port; closed before the pair is looked at."""
    wires: list[Wire] = []

    def connect() -> Wire:
        wires.append(Wire(socket.create_connection(("127.0.0.1", pair.ports["http"]))))
        return wires[-1]

    yield connect
    for wire in wires:
        wire.close()
