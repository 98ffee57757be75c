"""Logs: one line an event, whatever the data holds."""

import io
import json
import logging

import pytest

from spokes.log import JsonFormatter, TextFormatter, escape, setup_logging

NASTY = 'a\nb\r\x1b[31m\x00\x7f\u202e"=\U000e0001'


def record(message="tunnel on-line", **data):
    made = logging.makeLogRecord({"msg": message, "levelname": "INFO", "name": "spokes.test", **data})
    return made


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
def test_formatter_nasty_data_stays_on_one_printable_line(formatter):
    line = formatter.format(record(NASTY, peer=NASTY))
    assert line.isprintable()


def test_text_formatter_data_stands_beside_the_text():
    line = TextFormatter().format(record(peer="198.51.100.7 5", tunnel_uid="ab", ok=True))
    assert line.endswith('INFO tunnel on-line peer="198.51.100.7 5" tunnel_uid=ab ok=True')


def test_json_formatter_types_stay_and_ours_win():
    line = json.loads(JsonFormatter().format(record(links=3, level="fake")))
    assert (line["event"], line["links"], line["level"]) == ("tunnel on-line", 3, "info")


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_logging_exception_is_one_line(log_format):
    stream = io.StringIO()
    root = logging.getLogger()
    before = root.handlers[:], root.level
    try:
        setup_logging(log_format, "info", stream)
        try:
            raise RuntimeError("boom\nboom")
        except RuntimeError:
            logging.getLogger("spokes.test").exception("failed")
    finally:
        root.handlers[:] = before[0]
        root.setLevel(before[1])
    lines = stream.getvalue().splitlines()
    assert len(lines) == 1
    assert "boom\\nboom" in lines[0].replace("\\\\", "\\")


def test_escape_long_text_is_cut():
    assert len(escape("x" * 100_000)) < 5000
