"""The example configuration: read by the server's own reader, and complete."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from spokes.config import SETTINGS, ServerConfig, load_server_config

EXAMPLE = Path(__file__).parents[2] / "packaging/spokes.toml"


def test_example_config_as_shipped_is_accepted():
    assert load_server_config(EXAMPLE, {}) == ServerConfig(domain="tunnel.example.org")


def test_example_config_names_every_setting():
    assert set(re.findall(r"^(?:# )?(\w+) = ", EXAMPLE.read_text(), re.MULTILINE)) == set(SETTINGS)


def test_example_config_with_defaults_uncommented_is_the_default(tmp_path):
    active = tmp_path / "spokes.toml"
    active.write_text(re.sub(r"^# (\w+ = )", r"\1", EXAMPLE.read_text(), flags=re.MULTILINE))
    assert set(tomllib.loads(active.read_text())) == set(SETTINGS)
    assert load_server_config(active, {}) == ServerConfig(domain="tunnel.example.org")
