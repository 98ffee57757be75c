"""Dates of HTTP, with Python's own calendar as second opinion."""

import random
from email.utils import formatdate

import pytest
from spokes._fastpath.hooks.http_hooks import read_date, write_date

LAST_S = 253402300799


def test_date_is_written_as_python_does_and_read_back():
    generator = random.Random(1)
    days = [day * 86400 + generator.randrange(86400) for day in range(0, 60_000)]
    others = [generator.randrange(LAST_S) for _ in range(2000)]
    for unix_s in [0, 951782399, 951782400, 951868800, LAST_S, *days, *others]:
        text = formatdate(unix_s, usegmt=True).encode()
        assert write_date(unix_s) == text
        assert read_date(text) == unix_s


def test_date_beyond_the_last_year_is_the_last():
    assert write_date(2**63) == b"Fri, 31 Dec 9999 23:59:59 GMT"


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"Sun, 06 Nov 1994 08:49:37",
        b"Mon, 06 Nov 1994 08:49:37 GMT",  # it was a Sunday
        b"Sun, 06 nov 1994 08:49:37 GMT",
        b"Sun, 6 Nov 1994 08:49:37 GMT ",
        b"Sun, 06 Nov 1994 24:00:00 GMT",
        b"Sun, 06 Nov 1994 08:60:37 GMT",
        b"Sun, 06 Nov 1994 08:49:60 GMT",
        b"Sun, 06 Nov 1994 08:49:37 CET",
        b"Sun, 06-Nov-1994 08:49:37 GMT",
        b"Wed, 31 Apr 1997 00:00:00 GMT",
        b"Thu, 29 Feb 1900 00:00:00 GMT",
        b"Wed, 31 Dec 1969 23:59:59 GMT",
        b"Sun, 00 Nov 1994 08:49:37 GMT",
        b"Sun, -6 Nov 1994 08:49:37 GMT",
        b"Sunday, 06-Nov-94 08:49:37 GMT",
        b"Sun Nov  6 08:49:37 1994",
    ],
)
def test_date_of_another_form_or_day_is_none(text):
    assert read_date(text) == -1
