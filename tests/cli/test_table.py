"""Tables of facts: whole cells on every terminal, plain lines in a pipe."""

import io
import re

import pytest

from spokes.cli.table import print_table, tasks_text

HEADS = ["Id", "Name", "Text"]
ROW = ["0123456789abcdef0123456789abcdef", "shop.example.org", "word " * 12]


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    def show(columns, rows):
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setattr("sys.stdout", out := Terminal())
        print_table(HEADS, rows)
        return re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue())  # without colours

    return show


@pytest.mark.parametrize("columns", [40, 60, 80, 100, 200])
def test_table_any_width_keeps_ids_and_names_whole(terminal, columns):
    shown = terminal(columns, [ROW, ROW])
    assert shown.count(ROW[0]) == shown.count(ROW[1]) == 2


def test_table_wide_terminal_is_drawn_and_folds_only_the_last_column(terminal):
    lines = terminal(90, [ROW]).splitlines()
    assert lines[3].startswith(f"│ {ROW[0]} │ {ROW[1]} │ word word")
    assert lines[4].startswith("│      ")


def test_table_narrow_terminal_shows_rows_singly(terminal):
    assert terminal(60, [ROW]).splitlines()[:2] == [f"Id    {ROW[0]}", f"Name  {ROW[1]}"]


def test_table_markup_and_control_characters_are_shown_as_they_are(terminal):
    for columns in (40, 200):
        shown = terminal(columns, [["[red]x[/red]", "a\x1b[2Jb\nc", "\u202e"]])
        assert "[red]x[/red]" in shown
        assert "a\\x1b[2Jb\\nc" in shown
        assert "\\u202e" in shown


def test_table_in_a_pipe_lines_up_wide_characters(capsys):
    print_table(["Id", "Name"], [["1", "東京"], ["2", "x"]])
    assert capsys.readouterr().out == "| Id | Name |\n| 1  | 東京 |\n| 2  | x    |\n"


def test_tasks_text_tells_of_those_that_failed():
    well = {"name": "health", "state": "running", "failures_total": 0, "last_error": "", "failed_at": 0.0}
    failed = {"name": "network", "state": "waiting", "failures_total": 2, "last_error": "KeyError: 1", "failed_at": 1.0}
    assert tasks_text([well]) == "1 of 1 running"
    assert tasks_text([well, failed]) == (
        "1 of 2 running; network failed 2 times, last 1970-01-01T00:00:01Z (KeyError: 1), begins again soon"
    )
