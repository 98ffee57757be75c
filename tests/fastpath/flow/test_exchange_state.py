"""The phases of an exchange: the table in docs/engine.md and the engine's say the same, and nothing goes round it."""

from __future__ import annotations

import re

import pytest
from spokes._fastpath.hooks.flow_hooks import refused_steps, try_step

from tests.fastpath.core.test_engine_numbers import PAGE
from tests.fastpath.link.test_protocol_numbers import ROOT

FLOW = ROOT / "spokes" / "_fastpath" / "flow"


def names(enum: str, prefix: str) -> list[str]:
    """Of an enum of the state table in its order, without its prefix and its count."""
    found = re.search(rf"enum {enum} {{([^}}]*)}}", (FLOW / "exchange_state.pxd").read_text())
    assert found
    return [name for name in re.findall(rf"{prefix}(\w+)", found[1]) if name not in ("COUNT", "PHASE_COUNT")]


STEPS = names("ExchangeStep", "STEP_")
REQUEST_PHASES = [name.lower() for name in names("RequestPhase", "REQUEST_")]
RESPONSE_PHASES = [name.lower() for name in names("ResponsePhase", "RESPONSE_")]


def changes(cell: str) -> dict[str, str]:
    """The phase after, by phases before: `a, b → c`, or `a, b` where nothing changes."""
    before, _, after = (part.strip() for part in cell.partition("→"))
    return {phase: after or phase for phase in before.split(", ")}


def documented() -> dict[str, tuple[dict[str, str], dict[str, str]]]:
    table = PAGE.split("## Phases of an exchange\n", 1)[1].split("\n## ", 1)[0]
    rows = re.findall(r"^\| `(\w+)`: [^|]+\|([^|]+)\|([^|]+)\|$", table, re.MULTILINE)
    return {step: (changes(request), changes(response)) for step, request, response in rows}


def test_every_step_and_phase_is_documented() -> None:
    table = documented()
    assert list(table) == STEPS
    for column, phases in enumerate((REQUEST_PHASES, RESPONSE_PHASES)):
        before = set().union(*(row[column] for row in table.values()))
        after = set().union(*(row[column].values() for row in table.values()))
        assert before | after == set(phases)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("request_phase", REQUEST_PHASES)
@pytest.mark.parametrize("response_phase", RESPONSE_PHASES)
def test_step_is_the_documents(step: str, request_phase: str, response_phase: str) -> None:
    request, response = documented()[step]
    expected = None
    if request_phase in request and response_phase in response:
        expected = (
            REQUEST_PHASES.index(request[request_phase]), RESPONSE_PHASES.index(response[response_phase])
        )  # fmt: skip
    before = REQUEST_PHASES.index(request_phase), RESPONSE_PHASES.index(response_phase)
    assert try_step(STEPS.index(step), *before) == expected


def test_ended_exchange_takes_no_step() -> None:
    ended = RESPONSE_PHASES.index("ended")
    steps = [try_step(step, request, ended) for step in range(len(STEPS)) for request in range(len(REQUEST_PHASES))]
    assert set(steps) == {None}


def test_phases_are_changed_by_steps_alone() -> None:
    for path in FLOW.glob("*.p[yx][xd]"):
        source = re.sub(r"cdef inline void exchange_step\(.*?\n\n", "", path.read_text(), flags=re.DOTALL)
        assert not re.search(r"\b(?:request|response)_phase\s*(?:=(?!=)|[|&+-]=)", source), path.name


def test_tries_are_not_counted() -> None:
    assert try_step(STEPS.index("NEXT"), 0, 0) is None
    assert refused_steps() == 0
