"""Rules for every run: no test is skipped unseen, and nothing that a test left behind can keep the run from ending."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

KNOWN_SKIPS = Path(__file__).parent / "known_skips.txt"
STATUS = pytest.StashKey[int]()


def known_skips() -> set[str]:
    """Tests, or files, that may be skipped: `path::name`, without parameters."""
    lines = (line.partition("#")[0].strip() for line in KNOWN_SKIPS.read_text().splitlines())
    return {line for line in lines if line}


def is_known(test: str, known: set[str]) -> bool:
    name = test.partition("[")[0]
    return name in known or name.partition("::")[0] in known


class Skips:
    """Collects what was skipped; with several processes only where all reports come together."""

    def __init__(self) -> None:
        self.reasons: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            self._note(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:
            self._note(report)

    def _note(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        longrepr = report.longrepr
        self.reasons[report.nodeid] = longrepr[2] if isinstance(longrepr, tuple) else str(longrepr)

    def unknown(self) -> dict[str, str]:
        known = known_skips()
        return {test: reason for test, reason in self.reasons.items() if not is_known(test, known)}

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.unknown() and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for test, reason in sorted(self.unknown().items()):
            terminalreporter.write_line(f"FAILED {test} - skipped without being in {KNOWN_SKIPS.name}: {reason}")


def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # As under nohup: programs that tests start would inherit that, and never hear of Ctrl-C.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Skips(), "skips")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    session.config.stash[STATUS] = int(session.exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """The end of the process, whatever threads still run: no limit of a test applies behind this point."""
    status = config.stash.get(STATUS, None)
    if status is None or "coverage" in sys.modules:
        return
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
