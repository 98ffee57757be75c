"""Manual pages spokes(1) and spoke(1), written from the command lines themselves: `python packaging/manpages.py DIR`.

One page a program with all of its verbs. (click-man writes a page a verb and sees none that are loaded when typed.)
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

import spokes
from spokes.cli.client import spoke
from spokes.cli.server import main_group

PROGRAMS: dict[str, tuple[click.Command, str]] = {
    "spokes": (main_group, "self-hosted tunnel server"),
    "spoke": (spoke, "give local services public addresses through a Spokes server"),
}
EXIT_STATUS = (("0", "done"), ("1", "failed"), ("2", "wrong usage"), ("130", "interrupted"))


def roff(text: str) -> str:
    """Text that troff prints as it is."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return "\n".join("\\&" + line if line.startswith((".", "'")) else line for line in escaped.splitlines())


def verbs(command: click.Command, context: click.Context) -> Iterator[tuple[click.Command, click.Context]]:
    """The command and all below it, in the order of help."""
    yield command, context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is not None and not below.hidden:
                yield from verbs(below, click.Context(below, info_name=name, parent=context))


def options(command: click.Command, context: click.Context) -> Iterator[str]:
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None:
            yield f".TP\n.B {roff(record[0])}\n{roff(record[1])}"


def page(program: str) -> str:
    top, headline = PROGRAMS[program]
    lines = [
        f'.TH {program.upper()} 1 "" "Spokes {spokes.__version__}" "User commands"',
        f".SH NAME\n{program} \\- {roff(headline)}",
        f".SH SYNOPSIS\n.B {program}\n.RI [ options ] \" verb \" ...",
        f".SH DESCRIPTION\n{roff(top.help or '')}",
        ".SH VERBS",
    ]
    for command, context in verbs(top, click.Context(top, info_name=program)):
        usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
        lines.append(f".SS {roff(usage)}")
        if command is not top:
            lines.append(roff(command.help or ""))
        lines += options(command, context)
        if command.epilog:
            lines.append(f".PP\n{roff(command.epilog)}")
    lines.append(".SH EXIT STATUS")
    lines += [f".TP\n.B {code}\n{meaning}" for code, meaning in EXIT_STATUS]
    return "\n".join(lines) + "\n"


def main(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for program in PROGRAMS:
        (directory / f"{program}.1").write_text(page(program))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
