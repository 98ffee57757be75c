"""The documents against the program: what one names, the other has."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest

from spokes.cli.client import spoke
from spokes.cli.server import main_group
from spokes.config import SETTINGS

ROOT = Path(__file__).parent.parent
DOCS = sorted([*ROOT.glob("docs/*.md"), *(ROOT / name for name in (
    "README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "packaging/spokes.toml", "packaging/install.sh",
))])
PROGRAMS = {"spokes": main_group, "spoke": spoke}
CODE = re.compile(r"\bSPK-[A-Z0-9]+(?:-[A-Z0-9]+)*\b")


def commands(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is not None:
                yield from commands(below, (*path, name))


@cache
def all_commands() -> dict[tuple[str, ...], click.Command]:
    return {path: command for program, top in PROGRAMS.items() for path, command in commands(top, (program,))}


def options_of(command: click.Command) -> set[str]:
    return {word for parameter in command.params for word in (*parameter.opts, *parameter.secondary_opts)}


def prose(document: Path) -> str:
    """Lines of a document, those that a backslash goes on joined."""
    return document.read_text().replace("\\\n", " ")


def spans(document: Path) -> Iterator[str]:
    """What stands as code: spans, which may go over a line's end, and indented lines."""
    text = prose(document)
    yield from (" ".join(span.split()) for span in re.findall(r"(?<!`)`([^`]+)`(?!`)", text))
    yield from (line.strip() for line in text.splitlines() if line.startswith(("    ", "  /")))


def command_lines() -> Iterator[tuple[str, str]]:
    """Everything in the documents that somebody could type: `spokes …`, `spoke …`."""
    for document in DOCS:
        for span in spans(document):
            for typed in re.split(r"[|;&()]|\s#\s", span):
                found = re.match(r"(?:\S*/)?(spokes?) ([a-z-][^<>]*)$", typed.strip())
                if found:
                    yield f"{document.relative_to(ROOT)}: {typed.strip()}", f"{found[1]} {found[2]}"


def test_every_code_is_explained_and_every_explained_one_exists():
    raised = set()
    for source in (ROOT / "spokes").rglob("*.p*"):
        if source.suffix in (".py", ".pyx", ".pxd"):
            raised |= set(CODE.findall(source.read_text()))
    explained = re.findall(r"^### (SPK-\S+)$", (ROOT / "docs/errors.md").read_text(), re.MULTILINE)
    assert len(explained) == len(set(explained))
    assert raised - {"SPK-UPSTREAM"} == set(explained)      # SPK-UPSTREAM-…: all of that kind


@pytest.mark.parametrize("document", DOCS, ids=lambda path: path.name)
def test_document_names_only_codes_that_exist(document):
    explained = set(re.findall(r"^### (SPK-\S+)$", (ROOT / "docs/errors.md").read_text(), re.MULTILINE))
    assert set(CODE.findall(document.read_text())) - {"SPK-UPSTREAM"} <= explained


@pytest.mark.parametrize("document", DOCS, ids=lambda path: path.name)
def test_document_links_to_files_that_exist(document):
    text = document.read_text()
    for target in re.findall(r"\]\((?!https?:)([^)#]*)(?:#[^)]*)?\)", text):
        assert not target or (document.parent / target).exists(), target


def test_command_lines_in_documents_can_be_typed():
    lines = list(command_lines())
    assert len(lines) > 60
    unknown = []
    for where, line in lines:
        path, *words = line.split()
        verb: tuple[str, ...] = (path,)
        given = set()
        while words and words[0].startswith("--"):      # before the verb: --config FILE
            given.add(words[0])
            del words[:2]
        while words and (*verb, words[0]) in all_commands():
            verb = (*verb, words.pop(0))
        command = all_commands()[verb]
        given |= {word.split("=")[0] for word in words if word.startswith("--")}
        if not given <= options_of(command) | {"--help", "--webroot"}:      # `spoke http` is a group and a verb
            unknown.append(where)
        elif isinstance(command, click.Group) and verb[-1] not in ("http", "tcp"):
            one_of = bool(words) and all((*verb, word) in all_commands() for word in re.split(r"[/,]", words[0]))
            if not one_of and any(re.fullmatch(r"[a-z][a-z-]*", word) for word in words):
                unknown.append(where)
    assert unknown == []


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_verb_is_in_a_document(program):
    text = " ".join(span for document in DOCS for span in spans(document))
    missing = [
        " ".join(path) for path, command in all_commands().items()
        if len(path) == 2 and path[0] == program and not command.hidden and not re.search(rf"\b{path[1]}\b", text)
    ]
    assert missing == []


def test_variables_in_documents_exist_and_settings_are_documented():
    known = {one.variable for one in SETTINGS.values()}
    known |= {"SPOKES_PASSWORD", "SPOKES_SMTP_PASSWORD"}                    # secrets that are no options
    known |= {"SPOKES_COVERAGE", "SPOKES_DEBUG", "SPOKES_SANITIZE"}        # of the build
    for path, command in all_commands().items():
        words = "_".join(path).upper().replace("-", "_")
        known |= {f"{words}_{parameter.name.upper()}" for parameter in command.params if parameter.name}
    known |= {
        parameter.envvar for command in all_commands().values() for parameter in command.params
        if isinstance(parameter.envvar, str)
    }
    for document in [*DOCS, ROOT / "Dockerfile"]:
        for variable in re.findall(r"\b(SPOKES?_[A-Z_]+[A-Z])\b", document.read_text()):
            assert variable in known, (document, variable)
    operations = (ROOT / "docs/operations.md").read_text()
    assert {key for key in SETTINGS if f"`{key}`" not in operations} == set()


def test_nothing_speaks_of_pages_that_do_not_exist():
    texts = {str(document): document.read_text() for document in DOCS}
    texts |= {" ".join(path): f"{command.help} {command.epilog}" for path, command in all_commands().items()}
    assert [where for where, text in texts.items() if re.search(r"\bdashboard", text, re.IGNORECASE)] == []


def test_paths_that_architecture_and_contributing_name_exist():
    rooms = ("", "spokes", "spokes/_fastpath", "spokes/server", "spokes/admin", "spokes/store", "tests")
    inner = [*ROOT.glob("spokes/_fastpath/*/__init__.py"), *ROOT.glob("spokes/server/*/__init__.py")]
    rooms += tuple(str(path.parent.relative_to(ROOT)) for path in inner)
    for name in ("ARCHITECTURE.md", "CONTRIBUTING.md"):
        for span in set(spans(ROOT / name)) - {"spokes/1"}:
            is_path = re.fullmatch(r"\.?\w[\w.]*(?:/[\w.]+)*/?", span)
            if is_path and ("/" in span or re.search(r"\w\.(?:py|md|pyx)$", span)):
                assert any((ROOT / room / span).exists() for room in rooms), (name, span)
