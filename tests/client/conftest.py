"""Fixtures of the client's tests: a fake engine and a configuration file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from spokes.client import routes
from tests.client.fake_engine import FakeEngine, FakeUpstream

Json = dict[str, Any]


@pytest.fixture
def engine() -> Any:
    engine = FakeEngine()
    yield engine
    engine.stop()


@pytest.fixture(autouse=True)
def readable_upstreams(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine's own Upstream cannot be looked into."""
    monkeypatch.setattr(routes, "Upstream", FakeUpstream)


@pytest.fixture
def config_path(tmp_path: Path) -> Path:
    """A tunnel's configuration, without rules."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"serverHost": "127.0.0.1:8443", "key": "k" * 64, "serverKey": "ab" * 32}))
    path.chmod(0o600)
    return path
