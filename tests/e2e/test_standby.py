"""A standby on the primary's data directory, as real processes: when it takes over, and when it must not."""

from __future__ import annotations

import json
import signal
import time
from datetime import datetime
from pathlib import Path

import pytest

from spokes.server.process.run import STANDBY_LINE
from tests.support.ports import free_port, free_port_range
from tests.support.processes import READY_LINE, READY_WITHIN_S, Process, run, wait_until

pytestmark = pytest.mark.e2e

DOMAIN = "tun.localhost"  # resolves to this host everywhere
INTERVAL_S, FAILURES, TIMEOUT_S = 0.3, 2, 0.5


class Nodes:
    """Servers that share a data directory and the public address."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.data = directory, directory / "data"
        self.https_port = free_port()
        self.words = (
            "server", "--data", self.data, "--domain", DOMAIN, "--http", f"127.0.0.1:{free_port()}",
            "--https", f"127.0.0.1:{self.https_port}", "--tcp-address", "127.0.0.1", "--tcp-ports", free_port_range(4),
            "--workers", 1, "--admin", "false", "--log-format", "json",
        )  # fmt: skip
        self.started: list[Process] = []

    def start(self, *options: object) -> Process:
        log = self.directory / f"node-{len(self.started)}.log"
        process = Process(log, "spokes", *self.words, *options)
        self.started.append(process)
        return process

    def primary(self) -> Process:
        process = self.start()
        wait_until(lambda: READY_LINE in process.log(), READY_WITHIN_S, "the ready line")
        return process

    def standby(self) -> Process:
        process = self.start(
            "--ha-mode", "--ha-interval", INTERVAL_S, "--ha-failures", FAILURES, "--ha-timeout", TIMEOUT_S
        )
        wait_until(lambda: STANDBY_LINE in process.log(), READY_WITHIN_S, "the line of a standby")
        return process

    def status(self) -> dict:
        return json.loads(run("spokes", "status", "--data", self.data, "--json").stdout)


def events(process: Process, message: str) -> list[dict]:
    lines = [json.loads(line) for line in process.log().splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == message]


@pytest.fixture
def nodes(tmp_path):
    nodes = Nodes(tmp_path)
    yield nodes
    for process in nodes.started:
        process.send(signal.SIGCONT)
        process.end()


def test_standby_serves_nothing_while_the_primary_runs_and_takes_over_when_it_is_killed(nodes):
    primary = nodes.primary()
    standby = nodes.standby()
    assert nodes.status()["role"] == "standalone"
    primary.end(signal.SIGKILL)
    wait_until(lambda: READY_LINE in standby.log(), READY_WITHIN_S, "the standby serves")
    served = time.time()
    (*_, last) = events(standby, "primary does not answer")
    at = datetime.fromisoformat(last["time"]).timestamp()
    print(f"the standby served {served - at:.2f} s after its last failed probe")
    facts = nodes.status()
    assert (facts["pid"], facts["role"]) == (standby.popen.pid, "standalone")
    assert len(events(standby, "primary does not answer")) == FAILURES
    assert list(nodes.data.glob("standby-*.sock")) == []


def test_standby_without_a_primary_says_that_it_is_one_and_starts_after_its_failures(nodes):
    standby = nodes.start("--ha-mode", "--ha-interval", 60, "--ha-failures", 2)
    wait_until(lambda: events(standby, "primary does not answer"), READY_WITHIN_S, "the first probe")
    facts = nodes.status()
    assert (facts["role"], facts["pid"]) == ("standby", standby.popen.pid)
    assert (facts["failures"], facts["failures_allowed"], facts["lock_held"]) == (1, 2, False)
    assert "standby" in run("spokes", "status", "--data", nodes.data).stdout
    assert standby.end(signal.SIGTERM) == 0
    assert run("spokes", "status", "--data", nodes.data, code=1)


def test_standby_does_not_start_while_a_primary_that_is_stopped_holds_the_lock(nodes):
    primary = nodes.primary()
    standby = nodes.standby()
    primary.send(signal.SIGSTOP)
    wait_until(lambda: len(events(standby, "primary does not answer")) > FAILURES + 2, 60, "failed probes")
    assert len(events(standby, "standby stays: the data directory is in use")) == 1
    assert READY_LINE not in standby.log()
    primary.send(signal.SIGCONT)
    wait_until(lambda: events(standby, "primary answers again"), 60, "the primary is back")
    assert READY_LINE not in standby.log()
    assert nodes.status()["pid"] == primary.popen.pid


def test_of_two_standbys_exactly_one_starts(nodes):
    primary = nodes.primary()
    standbys = [nodes.standby(), nodes.standby()]
    primary.end(signal.SIGKILL)
    wait_until(lambda: any(READY_LINE in one.log() for one in standbys), READY_WITHIN_S, "one serves")
    one, other = sorted(standbys, key=lambda process: READY_LINE not in process.log())
    wait_until(lambda: events(other, "primary answers again"), 60, "the other one sees it")
    assert (one.popen.poll(), other.popen.poll()) == (None, None)
    assert READY_LINE not in other.log()
    one.end(signal.SIGKILL)     # and the other one is the standby of the one that started
    wait_until(lambda: READY_LINE in other.log(), READY_WITHIN_S, "the other one serves")
