"""Manual pages: every verb that can be typed is in them, and nothing in them is a request to troff by accident."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import click
import pytest

SPEC = importlib.util.spec_from_file_location("manpages", Path(__file__).parents[2] / "packaging/manpages.py")
manpages = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(manpages)

REQUESTS = {".TH", ".SH", ".SS", ".TP", ".PP", ".B", ".RI"}


@pytest.mark.parametrize("program", manpages.PROGRAMS)
def test_page_names_every_verb_with_its_options(program):
    text = manpages.page(program).replace("\\-", "-")
    top, _ = manpages.PROGRAMS[program]
    for command, context in manpages.verbs(top, click.Context(top, info_name=program)):
        assert re.search(rf"^\.SS {re.escape(context.command_path)}(\s|$)", text, re.MULTILINE), context.command_path
        for parameter in command.get_params(context):
            for word in parameter.opts if isinstance(parameter, click.Option) and not parameter.hidden else ():
                assert word in text


@pytest.mark.parametrize("program", manpages.PROGRAMS)
def test_page_has_no_line_that_troff_takes_for_a_request(program):
    for line in manpages.page(program).splitlines():
        if line.startswith((".", "'")):
            assert line.split()[0] in REQUESTS, line


def test_text_that_looks_like_a_request_is_shown_as_text():
    assert manpages.roff(".de x\n'y\n\\fB-a") == "\\&.de x\n\\&'y\n\\efB\\-a"
