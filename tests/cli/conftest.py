"""`spokes` typed into a fresh data directory, in this process: exit code, output, errors."""

import contextlib
import io
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from spokes.cli.entry import run_program
from spokes.cli.server import main_group
from spokes.store import Store

# Stores on both engines, as the store's own tests have them.
from tests.store.conftest import empty_url, postgresql, postgresql_template, store_url  # noqa: F401


@dataclass
class Typed:
    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


class Spokes:
    """Types verbs at a data directory; a code other than expected fails, and so does a traceback."""

    def __init__(self, data: Path, monkeypatch) -> None:
        self.data = data
        self._monkeypatch = monkeypatch

    def __call__(self, *args: object, code: int = 0, stdin: str = "") -> Typed:
        out, err = io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            self._monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
            found = run_program(main_group, "spokes", [*map(str, args), "--data", str(self.data)])
        typed = Typed(found, out.buffer.getvalue().decode(), err.getvalue())
        assert found == code, typed
        assert "Traceback" not in typed.err
        if code == 1 and not typed.out:
            assert typed.err.count("\n") == 1, typed.err
            assert "[SPK-" in typed.err
        return typed

    def json(self, *args: object, stdin: str = ""):
        return self(*args, "--json", stdin=stdin).json

    def store(self) -> Store:
        self.data.mkdir(mode=0o700, exist_ok=True)
        return Store.open(f"sqlite:///{self.data / 'spokes.db'}")


@pytest.fixture
def spokes(tmp_path, monkeypatch):
    for name in list(os.environ):
        if name.startswith("SPOKES_"):
            monkeypatch.delenv(name)
    spokes = Spokes(tmp_path / "data", monkeypatch)
    spokes.store().close()  # as the server makes it; no other verb does
    return spokes
