"""Faults of upstreams: one table of errors, pages and reasons."""

from __future__ import annotations

import errno

import pytest
from spokes._fastpath.http.page import PageId
from spokes._fastpath.route.outcome import Fault

from spokes._fastpath.engine import FAULT_CODES
from spokes._fastpath.hooks import flow_hooks as fault

RC_TIMEOUT, RC_LOCAL = -5007, -5008
GONE, NO_SERVICE, REFUSED, UNREACHABLE, TIMEOUT, LIMIT, INTERNAL = 1, 2, 3, 4, 5, 6, 8
FAULTS = {name: int(value) for name, value in Fault.__members__.items()}
PAGES = {name: int(value) for name, value in PageId.__members__.items()}


@pytest.mark.parametrize(
    ("error", "dialled", "stood"),
    [
        (-errno.ECONNREFUSED, "REFUSED", "RESET"),
        (-errno.ENOENT, "REFUSED", "RESET"),
        (-errno.EACCES, "REFUSED", "RESET"),
        (-errno.EHOSTUNREACH, "UNREACHABLE", "UNREACHABLE"),
        (-errno.ENETUNREACH, "UNREACHABLE", "UNREACHABLE"),
        (-errno.ETIMEDOUT, "DIAL_TIMEOUT", "SILENT"),
        (RC_TIMEOUT, "DIAL_TIMEOUT", "SILENT"),
        (-errno.EMFILE, "LOCAL", "RESET"),
        (-errno.EADDRNOTAVAIL, "LOCAL", "RESET"),
        (-errno.ECONNRESET, "RESET", "RESET"),
        (-errno.EPIPE, "UNREACHABLE", "RESET"),
        (RC_LOCAL, "NONE", "NONE"),
    ],
)
def test_error_is_a_fault_of_dialling_or_of_a_conn_that_stood(error: int, dialled: str, stood: str) -> None:
    assert fault.describe_error(error) == (FAULTS[f"FAULT_{dialled}"], FAULTS[f"FAULT_{stood}"])


def test_every_fault_has_a_page_and_a_reason() -> None:
    table = fault.fault_table()
    assert len(table) == len(FAULT_CODES)
    assert all(page > 0 and reason > 0 for page, reason in table)


def test_reason_of_a_reset_is_the_page_of_its_fault() -> None:
    for reason, name in (
        (NO_SERVICE, "NO_RULE"), (REFUSED, "UPSTREAM_REFUSED"), (UNREACHABLE, "UPSTREAM_UNREACHABLE"),
        (TIMEOUT, "UPSTREAM_TIMEOUT"), (LIMIT, "LIMIT"), (INTERNAL, "LIMIT"), (GONE, "UPSTREAM_BROKEN"),
        (0, "UPSTREAM_BROKEN"), (999, "UPSTREAM_BROKEN"),
    ):
        assert fault.describe_reason(reason) == PAGES[f"PAGE_{name}"], reason
