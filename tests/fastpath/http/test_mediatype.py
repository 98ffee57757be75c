"""Content types by extension."""

import pytest
from spokes._fastpath.hooks.http_hooks import media_type, table

UNKNOWN = "application/octet-stream"


def test_table_is_sorted_and_every_extension_is_found():
    extensions = [extension for extension, _ in table()]
    assert extensions == sorted(set(extensions))
    for extension, kind in table():
        assert media_type(f"a/b.{extension}".encode()) == kind
        assert media_type(f"A.{extension.upper()}".encode()) == kind


def test_text_says_its_charset():
    assert all(kind.endswith("; charset=utf-8") for _, kind in table() if kind.startswith("text/"))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (b"index.html", "text/html; charset=utf-8"),
        (b"a.tar.gz", "application/gzip"),
        (b"a.html.bak", UNKNOWN),
        (b"a.b/html", UNKNOWN),
        (b"html", UNKNOWN),
        (b"a.", UNKNOWN),
        (b"", UNKNOWN),
        (b"a.htmlx", UNKNOWN),
        (b"a.ht", UNKNOWN),
        (b"a." + b"x" * 300, UNKNOWN),
        ("a.ü".encode(), UNKNOWN),
        (b"a.\xffhtml", UNKNOWN),
    ],
)
def test_media_type_by_the_last_extension_alone(name, kind):
    assert media_type(name) == kind
