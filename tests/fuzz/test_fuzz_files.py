"""What a visitor may write to get at a file: paths against Python's own decoder, conditions against what must hold.

SPOKES_FUZZ_EXAMPLES sets the examples per test (default: what takes a few seconds).
"""

from __future__ import annotations

import os
import re
from urllib.parse import unquote_to_bytes

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from spokes._fastpath.hooks.http_hooks import decode_path, select

LONG_RUN = settings(
    max_examples=int(os.environ.get("SPOKES_FUZZ_EXAMPLES", "600")),
    deadline=None,
    suppress_health_check=list(HealthCheck),
)

PIECES = [
    b"/", b"//", b".", b"..", b"%2e", b"%2E%2e", b"%2f", b"%5c", b"\\", b"%00", b"%", b"%2", b"%zz", b"%25", b"%252e",
    b"?", b"a", b"index.html", b".well-known", b"%c3%bc", b"%c0%ae", b"%ed%a0%80", b"%f0%9f%a6%a6", b"%0a", b"~", b"+",
    b"%7f", b";", b":", b"%3f",
]  # fmt: skip
PATHS = st.lists(st.sampled_from(PIECES) | st.binary(max_size=3), max_size=12).map(lambda some: b"/" + b"".join(some))

ETAG = b'"18f-a"'
TEXT = st.text(alphabet='"W/,*-= 0123456789abcdefbytes18f-a', max_size=24)
FIELDS = st.lists(
    st.tuples(
        st.sampled_from(
            ["If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since", "If-Range", "Range", "range"]
        ),
        TEXT
        | st.sampled_from(['"18f-a"', 'W/"18f-a"', "*", "Sun, 06 Nov 1994 08:49:37 GMT"])
        | st.builds("bytes={}-{}".format, st.integers(0, 1200), st.integers(0, 1200) | st.just(""))
        | st.builds("bytes=-{}".format, st.integers(0, 2**70)),
    ),
    max_size=4,
)


def expected(path: bytes) -> tuple[bytes, bool, bytes] | None:
    """The rules once more, said in Python; None: no file, or no path at all."""
    raw, mark, query = path.partition(b"?")
    if re.search(rb"%(?![0-9A-Fa-f]{2})", raw) or re.search(rb"%2f", raw, re.IGNORECASE):
        return None
    segments = [unquote_to_bytes(segment) for segment in raw.split(b"/")]
    is_directory = segments[-1] == b""
    named = [segment for segment in segments if segment]
    text = b"/".join(named) + (b"/" if is_directory and named else b"")
    if any(segment.startswith(b".") for segment in named[1:]) or re.search(rb"[\x00-\x1f\x7f\\]", text):
        return None
    if named and named[0].startswith(b".") and named[0] != b".well-known":
        return None
    try:
        text.decode()
    except UnicodeDecodeError:
        return None
    return text, is_directory, mark + query


@LONG_RUN
@given(path=PATHS)
def test_path_is_read_as_python_reads_it(path):
    decoded = decode_path(path)
    assert (None if isinstance(decoded, int) else decoded) == expected(path)


@LONG_RUN
@given(fields=FIELDS, total=st.integers(0, 1100), method=st.sampled_from(["GET", "HEAD"]))
def test_selection_lies_within_the_file_whatever_is_asked(fields, total, method):
    head = f"{method} / HTTP/1.1\r\nHost: a\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields) + "\r\n"
    status, first, count = select(head.encode(), ETAG, 784111777, total)
    names = {name.lower() for name, _ in fields}
    assert status in (200, 206, 304, 412, 416)
    assert first + count <= total
    if status == 206:
        assert count > 0
        assert method == "GET"
    if status == 200:
        assert (first, count) == (0, total)
    if status in (206, 416):
        assert "range" in names
    if status == 304:
        assert names & {"if-none-match", "if-modified-since"}
    if status == 412:
        assert names & {"if-match", "if-unmodified-since"}
