"""What stands in an enumeration of the engine and somewhere else is the same in both places."""

from __future__ import annotations

import ast
import re
from enum import IntEnum
from pathlib import Path

import pytest
from spokes._fastpath.http.page import PageId
from spokes._fastpath.route.outcome import Fault

import spokes._fastpath
from spokes._fastpath import engine
from spokes.pages import PAGES

FOLDER = Path(spokes._fastpath.__file__).parent


def members_in_the_stub(name: str) -> dict[str, int]:
    tree = ast.parse((FOLDER / "engine.pyi").read_text(encoding="utf-8"))
    body = next(node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
    return {
        node.targets[0].id: node.value.value
        for node in body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.Constant)
    }


@pytest.mark.parametrize("name", ["ListenerKind", "RouteKind", "EventKind", "LinkDown"])
def test_enumeration_is_the_stubs(name):
    kind = getattr(engine, name)
    assert issubclass(kind, IntEnum)
    assert {member.name: member.value for member in kind} == members_in_the_stub(name)


def test_every_page_of_the_engine_has_status_and_text_and_every_text_a_page():
    assert sorted(engine.PAGE_CODES[1:]) == sorted(PAGES)
    assert len(engine.PAGE_CODES) == PageId.PAGE_COUNT


def test_every_fault_has_a_code():
    codes = dict(zip((fault for fault in Fault if fault != Fault.FAULT_COUNT), engine.FAULT_CODES, strict=True))
    assert codes[Fault.FAULT_NONE] == ""
    assert codes[Fault.FAULT_REFUSED] == "SPK-UPSTREAM-REFUSED"
    assert codes[Fault.FAULT_CUT] == "SPK-UPSTREAM-CUT"
    assert set(engine.FAULT_CODES[1:]) - {"SPK-UPSTREAM-CUT"} <= PAGES.keys()


def test_counters_are_those_of_stats():
    names = re.findall(r"^    uint64_t (\w+)", (FOLDER / "base" / "stats.pxd").read_text(), re.MULTILINE)
    made = engine.Engine(workers=1, memory_limit_bytes=8 << 20, accepting=False)
    try:
        assert list(made.worker_stats()[0]) == [*names, "timers_open"]
    finally:
        made.stop()
