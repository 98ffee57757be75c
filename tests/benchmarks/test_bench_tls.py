"""The TLS benchmark still runs and says what it measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "bench_tls.py"


def test_bench_tls_tiny_run_reports_every_figure() -> None:
    run = subprocess.run(
        [sys.executable, SCRIPT, "--count", "200", "--total-mb", "5", "--runs", "1"], check=True, capture_output=True
    )
    figures = json.loads(run.stdout)
    sides = ("server", "client", "server_resumed", "client_resumed")
    assert set(figures) == {f"idle_{side}_bytes" for side in sides} | {"one_way_16384_mb_s", "one_way_65536_mb_s"}
    assert all(value > 0 for value in figures.values())
    assert figures["idle_server_bytes"] < 32 * 1024  # an idle link's share of the promise: 40 KB with all it needs
