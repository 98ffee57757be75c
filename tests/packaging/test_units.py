"""The systemd units and the container image: what docs/security.md promises of them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from spokes.client.access_file import _UNIT_DIRECTORY
from spokes.client.config import SYSTEM_PATH
from spokes.config import SETTINGS, ServerConfig

ROOT = Path(__file__).parents[2]
UNITS = ("spokes", "spoke")


def settings(unit: str) -> list[tuple[str, str]]:
    text = (ROOT / f"packaging/systemd/{unit}.service").read_text()
    return re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE)


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize(("key", "value"), [
    ("NoNewPrivileges", "yes"), ("ProtectSystem", "strict"), ("LimitCORE", "0"), ("UMask", "0077"),
    ("RestrictNamespaces", "yes"), ("MemoryDenyWriteExecute", "yes"),
])
def test_unit_is_hardened(unit, key, value):
    assert (key, value) in settings(unit)


def test_units_run_unprivileged_and_only_the_server_may_bind_low_ports():
    assert [value for key, value in settings("spokes") if key == "CapabilityBoundingSet"] == ["CAP_NET_BIND_SERVICE"]
    assert [value for key, value in settings("spoke") if key == "CapabilityBoundingSet"] == [""]
    users = (ROOT / "packaging/systemd/sysusers.conf").read_text()
    for unit in UNITS:
        assert ("User", unit) in settings(unit)
        assert re.search(rf"^u\s+{unit}\s", users, re.MULTILINE)


def test_units_make_the_directories_that_the_programs_write_to():
    assert ("RuntimeDirectory", str(_UNIT_DIRECTORY.relative_to("/run"))) in settings("spoke")
    assert ("ConfigurationDirectory", str(SYSTEM_PATH.parent.relative_to("/etc"))) in settings("spoke")
    assert ("StateDirectory", str(ServerConfig().data.relative_to("/var/lib"))) in settings("spokes")


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
@pytest.mark.parametrize("unit", UNITS)
def test_unit_is_understood_by_systemd(unit, tmp_path):
    text = (ROOT / f"packaging/systemd/{unit}.service").read_text()
    copy = tmp_path / f"{unit}.service"
    copy.write_text(re.sub(r"^(Exec\w+)=\S+", r"\1=/bin/true", text, flags=re.MULTILINE))
    words = ["systemd-analyze", "--man=no", "verify", str(copy)]        # the pages are installed beside the units
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert f"{unit}.service:" not in done.stderr, done.stderr


def test_image_runs_unprivileged_on_one_volume_with_a_health_check():
    text = (ROOT / "Dockerfile").read_text()
    runtime = text[text.rindex("\nFROM "):]
    assert re.findall(r"^VOLUME (.+)$", runtime, re.MULTILINE) == ["/var/lib/spokes"]
    assert re.findall(r"^USER (.+)$", runtime, re.MULTILINE) == ["10001:10001"]  # a number: seen not to be root
    assert re.search(r'^HEALTHCHECK .*CMD \["python", "-I", "-m", "spokes.health"\]$', runtime, re.MULTILINE)
    assert "22000-22999/udp" in re.search(r"^EXPOSE (.+)$", runtime, re.MULTILINE)[1].split()
    # Builders of Debian 12 and EL 9 (buildah 1.28, Docker before 25) refuse a Dockerfile with this flag.
    assert "--start-interval" not in runtime
    variables = {one.variable for one in SETTINGS.values()}
    assert set(re.findall(r"SPOKES_\w+(?==)", runtime)) <= variables


def test_image_copies_nothing_that_dockerignore_withholds():
    text = (ROOT / "Dockerfile").read_text()
    allowed = {line[1:].rstrip("/") for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"}
    copied = {word.rstrip("/") for line in re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE)
              for word in line.split()[:-1]}
    assert copied == allowed
    assert all((ROOT / name).exists() for name in copied)
