"""What holds for every verb of both programs: help with an example, --config, variables, codes, ends."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import spokes
from spokes.cli.client import spoke
from spokes.cli.entry import EXIT_USAGE, run_program
from spokes.cli.server import main_group
from spokes.store import Store

PROGRAMS = {"spokes": main_group, "spoke": spoke}
BIN = Path(sys.executable).parent
NEVER_A_VARIABLE = {"--help", "--version", "--json"}  # what one call asks for


def walk(command: click.Command, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield words, command
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=words[-1])
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from walk(found, (*words, name))


EVERY = [one for name, group in PROGRAMS.items() for one in walk(group, (name,))]
VERBS = [one for one in EVERY if not isinstance(one[1], click.Group)]
ids = [" ".join(words) for words, _ in EVERY]
verb_ids = [" ".join(words) for words, _ in VERBS]


def options_of(command: click.Command) -> dict[str, click.Option]:
    return {name: one for one in command.params if isinstance(one, click.Option) for name in one.opts}


def run(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = run_program(PROGRAMS[words[0]], words[0], words[1:])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_both_programs_are_walked():
    assert len([words for words, _ in VERBS if words[0] == "spokes"]) > 40
    assert len([words for words, _ in VERBS if words[0] == "spoke"]) > 15


@pytest.mark.parametrize(("words", "command"), EVERY, ids=ids)
def test_help_has_an_example_of_the_program(words, command, capsys):
    code, out, _ = run((*words, "--help"), capsys)
    assert code == 0
    assert f"Example: {words[0]}" in out.replace("\n  ", " ")
    assert "dashboard" not in out  # there is none yet


@pytest.mark.parametrize(("words", "command"), EVERY, ids=ids)
def test_wrong_option_is_2_with_a_code(words, command, capsys):
    code, out, err = run((*words, "--no-such-option"), capsys)
    assert (code, out) == (EXIT_USAGE, "")
    assert "[SPK-USAGE]" in err.splitlines()[-1]


@pytest.mark.parametrize(("words", "command"), VERBS, ids=verb_ids)
def test_config_is_taken_after_the_verb_and_json_where_facts_are_printed(words, command):
    options = options_of(command)
    assert "--config" in options
    assert options["--config"].envvar == f"{words[0].upper()}_CONFIG"
    if words[-1] not in ("server", "start"):
        assert "--json" in options


@pytest.mark.parametrize(("words", "command"), VERBS, ids=verb_ids)
def test_options_are_variables_by_the_same_word(words, command):
    for name, option in options_of(command).items():
        if name in NEVER_A_VARIABLE or not name.startswith("--"):
            continue
        if words[0] == "spoke" or words[1] in ("server", "check-config"):
            variables = [option.envvar] if isinstance(option.envvar, str) else list(option.envvar or ())
            assert f"{words[0].upper()}_{name[2:].upper().replace('-', '_')}" in variables, name
        else:
            assert option.allow_from_autoenv, name


def test_option_of_a_verb_is_a_variable_by_the_verbs_words(tmp_path, monkeypatch, capsys):
    Store.open(f"sqlite:///{tmp_path / 'spokes.db'}").close()
    monkeypatch.setenv("SPOKES_TOKEN_CREATE_DESCRIPTION", "by variable")
    assert run(("spokes", "token", "create", "--data", str(tmp_path)), capsys)[0] == 0
    assert "by variable" in run(("spokes", "token", "list", "--data", str(tmp_path)), capsys)[1]


@pytest.mark.parametrize("program", PROGRAMS)
def test_version_is_told(program, capsys):
    for words in ((program, "--version"), (program, "version")):
        code, out, _ = run(words, capsys)
        assert code == 0
        assert spokes.__version__ in out


@pytest.mark.parametrize(
    "words",
    [("spokes", "check-config", "--http", "127.0.0.1:0", "--https", "127.0.0.1:0"), ("spokes", "--help"),
     ("spoke", "--help"), ("spoke", "version", "--json"), ("spokes", "version", "--json")],
)  # fmt: skip
def test_reader_that_left_is_1_and_says_nothing(words, tmp_path):
    """As in `spokes … | head -0`: nobody reads any more when the first line comes."""
    reading, writing = os.pipe()
    os.close(reading)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("SPOKES_", "SPOKE_"))}
    done = subprocess.run(
        [BIN / words[0], *words[1:]], stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
        env=environment | {"SPOKES_DATA": str(tmp_path), "HOME": str(tmp_path)},
    )  # fmt: skip
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")
