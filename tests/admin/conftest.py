"""The app over a store of its own, on both engines, with a control socket that remembers and a caller to choose."""

from __future__ import annotations

from typing import Any

import pytest

from spokes.admin.app import create_app
from spokes.admin.context import Admin
from spokes.store import Store
from tests.store.conftest import postgresql, postgresql_template, store, store_url
from tests.support.admin import Api, CallerSwitch, FakeControl

__all__ = ["postgresql", "postgresql_template", "store", "store_url"]

DOMAIN = "tun.example.net"


@pytest.fixture
def control() -> FakeControl:
    return FakeControl()


@pytest.fixture
def admin(store: Store, control: FakeControl) -> Admin:
    return Admin(store=store, control=control, domain=DOMAIN)


@pytest.fixture
def caller() -> CallerSwitch:
    return CallerSwitch()


@pytest.fixture
def app(admin: Admin, caller: CallerSwitch) -> Any:
    """As it runs, but that everybody is `caller`."""
    return create_app(admin, authenticate=caller)


@pytest.fixture
def api(app: Any) -> Api:
    return Api(app)
