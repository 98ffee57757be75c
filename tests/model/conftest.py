"""One store a test; what differs between engines is the store's to test."""

import pytest

from spokes.store import Store
from tests.model.tenants import World


@pytest.fixture
def store(tmp_path):
    with Store.open(f"sqlite:///{tmp_path / 'spokes.db'}") as opened:
        yield opened


@pytest.fixture
def world(store):
    return World(store)
