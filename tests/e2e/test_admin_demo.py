"""The operator's session that is kept as a script: it has to work as it is written, from nothing."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from pathlib import Path

import pytest

from tests.support.ports import free_port, free_port_range
from tests.support.processes import clean_environment

pytestmark = pytest.mark.e2e

SCRIPT = Path(__file__).parents[2] / "packaging" / "admin-demo.sh"


def test_admin_demo_session_passes_over_a_port_in_use_and_reaches_its_end(tmp_path: Path):
    ports = free_port_range(4)
    with socket.create_server(("127.0.0.1", ports.begin)):  # another program's
        done = subprocess.run(
            [str(SCRIPT)],
            env={
                **clean_environment(),
                "HTTP_PORT": str(free_port()),
                "HTTPS_PORT": str(free_port()),
                "TCP_PORTS": str(ports),
                "TMPDIR": str(tmp_path),
                "PATH": os.environ["PATH"],
            },
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert done.returncode == 0, (done.stdout, done.stderr)
    assert done.stdout.endswith("== Done\n")
    assert f'"port":{ports.begin + 1},' in done.stdout
    said = ("hello from new", "site.edit", "service.up delivered 204", "SPK-INACTIVE")
    assert re.search(r"^spokes_tunnel_\w+\{.*tunnel=.*\} [1-9]", done.stdout, re.MULTILINE)  # what was carried
    assert not [words for words in said if words not in done.stdout]
    assert not list(tmp_path.iterdir())
