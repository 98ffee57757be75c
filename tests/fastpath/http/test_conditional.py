"""What a request asks of a representation: RFC 9110, sections 13 and 14, line by line."""

import pytest
from spokes._fastpath.hooks.http_hooks import select, write_date

ETAG = b'"18f-a"'
MODIFIED_S = 784111777  # Sun, 06 Nov 1994 08:49:37 GMT
SAME = write_date(MODIFIED_S).decode()
BEFORE = write_date(MODIFIED_S - 1).decode()
AFTER = write_date(MODIFIED_S + 1).decode()
TOTAL = 1000


def ask(*fields, method="GET", total=TOTAL):
    head = "".join(f"{line}\r\n" for line in (f"{method} / HTTP/1.1", "Host: a.example", *fields, ""))
    return select(head.encode("latin-1"), ETAG, MODIFIED_S, total)


WHOLE = (200, 0, TOTAL)


def test_no_condition_is_the_whole():
    assert ask() == WHOLE


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        (['If-None-Match: "18f-a"'], 304),
        (['if-none-match: W/"18f-a"'], 304),
        (["If-None-Match: *"], 304),
        (['If-None-Match: "x", "18f-a"'], 304),
        (['If-None-Match: "x",,  ,W/"18f-a" , "y"'], 304),
        (['If-None-Match: "x"', 'If-None-Match: "18f-a"'], 304),
        (['If-None-Match: "x,\\"18f-a"'], 200),
        (['If-None-Match: "18f-A"'], 200),
        (["If-None-Match: 18f-a"], 200),
        (['If-None-Match: "18f-a'], 200),
        (['If-None-Match: w/"18f-a"'], 200),
        (["If-None-Match: W/"], 200),
        (["If-None-Match:"], 200),
        (['If-None-Match: "x"', f"If-Modified-Since: {SAME}"], 200),  # the tag alone decides
        ([f"If-Modified-Since: {SAME}"], 304),
        ([f"If-Modified-Since: {AFTER}"], 304),
        ([f"If-Modified-Since: {BEFORE}"], 200),
        (["If-Modified-Since: yesterday"], 200),
        (['If-Match: "18f-a"'], 200),
        (['If-Match: "x", "18f-a"'], 200),
        (["If-Match: *"], 200),
        (['If-Match: W/"18f-a"'], 412),  # strong comparison
        (['If-Match: "x"'], 412),
        (['If-Match: "18f-a"', f"If-Unmodified-Since: {BEFORE}"], 200),
        ([f"If-Unmodified-Since: {BEFORE}"], 412),
        ([f"If-Unmodified-Since: {SAME}"], 200),
        (["If-Unmodified-Since: never"], 200),
        (['If-Match: "x"', 'If-None-Match: "18f-a"'], 412),
        (['If-None-Match: "18f-a"', "Range: bytes=0-1"], 304),
        (['If-Match: "x"', "Range: bytes=5000-"], 412),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_condition_decides_the_status(fields, status, method):
    assert ask(*fields, method=method)[0] == status


@pytest.mark.parametrize(
    ("value", "first", "count"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-", 0, 1000),
        ("bytes=10-19", 10, 10),
        ("Bytes=10-19", 10, 10),
        ("bytes= 10-19", 10, 10),
        ("bytes=990-5000", 990, 10),
        ("bytes=999-", 999, 1),
        ("bytes=-1", 999, 1),
        ("bytes=-1000", 0, 1000),
        ("bytes=-5000", 0, 1000),
        ("bytes=0-99999999999999999999999999", 0, 1000),
        ("bytes=-99999999999999999999999999", 0, 1000),
        ("bytes=0000000000000000000000000000001-2", 1, 2),
    ],
)
def test_range_of_one_part(value, first, count):
    assert ask(f"Range: {value}") == (206, first, count)
    assert ask(f"Range: {value}", method="HEAD") == WHOLE


@pytest.mark.parametrize(
    "value", ["bytes=1000-", "bytes=1000-2000", "bytes=-0", "bytes=99999999999999999999999-", "bytes=5000-6000"]
)
def test_range_behind_the_end_is_416(value):
    assert ask(f"Range: {value}")[0] == 416


@pytest.mark.parametrize(
    "value",
    [
        "bytes=0-1,5-6", "bytes=0-1, 5000-", "bytes=5-1", "bytes=-", "bytes=", "bytes", "bytes=a-b", "bytes=1-b",
        "bytes=+1-2", "bytes=1--2", "bytes=--1", "bytes=1-2-3", "bytes=0x1-2", "items=0-1", "bytes 0-1", "=0-1", "0-1",
        "bytes=1", "bytes=1 -2", "",
    ],
)  # fmt: skip
def test_range_that_is_none_or_several_is_the_whole(value):
    assert ask(f"Range: {value}") == WHOLE


def test_range_said_twice_is_the_whole():
    assert ask("Range: bytes=0-1", "Range: bytes=2-3") == WHOLE


def test_range_of_nothing():
    assert ask("Range: bytes=0-", total=0)[0] == 416
    assert ask("Range: bytes=-5", total=0) == (200, 0, 0)


@pytest.mark.parametrize(
    ("value", "status"),
    [
        ('"18f-a"', 206), (SAME, 206), ('W/"18f-a"', 200), ('"x"', 200), (AFTER, 200), (BEFORE, 200), ("*", 200),
        ("", 200), ("yesterday", 200),
    ],
)  # fmt: skip
def test_if_range_holds_for_exactly_the_same_alone(value, status):
    assert ask("Range: bytes=1-2", f"If-Range: {value}")[0] == status
    assert ask("Range: bytes=5000-", f"If-Range: {value}")[0] == (416 if status == 206 else 200)
