"""One store a test; what differs between engines is the store's to test."""

import pytest

from spokes.store import Store


@pytest.fixture
def store(tmp_path):
    with Store.open(f"sqlite:///{tmp_path / 'spokes.db'}") as opened:
        yield opened
