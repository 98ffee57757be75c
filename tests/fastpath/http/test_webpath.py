"""Paths of requests as paths of files: decoded once, and nothing gets past the rules."""

import random

import pytest
from spokes._fastpath.hooks.http_hooks import decode_path, encode_directory

NO_FILE = 0
RC_PROTO = -5002

TRAVERSALS = [
    b"/..", b"/../", b"/../x", b"/a/..", b"/a/../..", b"/a/../../etc/passwd", b"/./x", b"/a/.", b"/a/./b",
    b"/%2e%2e/x", b"/%2E%2E/x", b"/.%2e/x", b"/%2e./x", b"/%2e/x", b"/a/%2e%2e", b"/a/%2e%2e%2fb", b"/..%2fx",
    b"/%2e%2e%2fetc%2fpasswd", b"/..%5cx", b"/..\\x", b"/a\\..\\b", b"/a%5cb", b"/%5c..%5cx", b"/..;/x", b"/.;/x",
    b"/%00", b"/a%00.txt", b"/..%00/", b"/a%2fb", b"/a%2Fb", b"//../x", b"///..//x", b"/%2f..%2fx", b"/..//x",
    b"/%c0%ae%c0%ae/x", b"/%c0%af", b"/a%c0%afb", b"/%e0%80%ae%e0%80%ae/x", b"/%e0%80%af", b"/%f0%80%80%ae/x",
    b"/%c1%9c", b"/%f8%80%80%80%ae", b"/%ed%a0%80", b"/%f4%90%80%80", b"/%ff", b"/a%80", b"/%c3", b"/%c3/x",
    b"/.env", b"/.git/config", b"/a/.htaccess", b"/%2eenv", b"/...", b"/.../x", b"/.well-known2/x", b"/.well-known.bak",
    b"/a/.well-known/x", b"/.Well-Known/x", b"/.well-known/.x", b"/.well-known/../x", b"/a%0ab", b"/a%0d%0ab",
    b"/a%7f", b"/a%1fb", b"..", b"../x", b".env",
]  # fmt: skip
BROKEN = [b"/%", b"/%4", b"/%zz", b"/%4x", b"/a%", b"/%%41", b"/%u002e", b"/% 41", b"/%2", b"/%?x", b"/%4?1"]


@pytest.mark.parametrize("path", TRAVERSALS)
def test_decode_what_leads_elsewhere_or_is_hidden_names_no_file(path):
    assert decode_path(path) == NO_FILE


@pytest.mark.parametrize("path", BROKEN)
def test_decode_broken_escape_is_a_bad_request(path):
    assert decode_path(path) == RC_PROTO


@pytest.mark.parametrize(
    ("path", "decoded"),
    [
        (b"/", (b"", True, b"")),
        (b"", (b"", True, b"")),
        (b"?x", (b"", True, b"?x")),
        (b"/a", (b"a", False, b"")),
        (b"/a/b.txt", (b"a/b.txt", False, b"")),
        (b"/a/", (b"a/", True, b"")),
        (b"/a?b=/../c", (b"a", False, b"?b=/../c")),
        (b"/a/?q=%zz", (b"a/", True, b"?q=%zz")),
        (b"//a//b", (b"a/b", False, b"")),
        (b"//evil.example", (b"evil.example", False, b"")),
        (b"/a%20b", (b"a b", False, b"")),
        (b"/a+b", (b"a+b", False, b"")),
        (b"/%41", (b"A", False, b"")),
        (b"/100%25", (b"100%", False, b"")),
        (b"/%252e%252e/x", (b"%2e%2e/x", False, b"")),  # once, and once only
        (b"/a%3fb", (b"a?b", False, b"")),
        (b"/a..b", (b"a..b", False, b"")),
        (b"/a.", (b"a.", False, b"")),
        (b"/a..", (b"a..", False, b"")),
        (b"/~user", (b"~user", False, b"")),
        (b"/gr%C3%BC%c3%9Fe", ("grüße".encode(), False, b"")),
        (b"/%F0%9F%A6%A6", ("🦦".encode(), False, b"")),
        (b"/.well-known", (b".well-known", False, b"")),
        (b"/.well-known/acme-challenge/x", (b".well-known/acme-challenge/x", False, b"")),
        (b"/%2ewell-known/x", (b".well-known/x", False, b"")),
    ],
)
def test_decode_says_file_directory_and_query(path, decoded):
    assert decode_path(path) == decoded


def test_decode_at_most_4000_bytes():
    assert decode_path(b"/" + b"a" * 4000) == (b"a" * 4000, False, b"")
    assert decode_path(b"/" + b"a" * 4001) == NO_FILE
    assert decode_path(b"/" + b"%61" * 4001) == NO_FILE


def test_decode_any_bytes_never_leave_the_directory():
    """What comes out is relative, without empty, dotted or control parts, whatever goes in."""
    generator = random.Random(1)
    alphabet = b"/.%2eEfF5cC0aA\\?\x00~w" + b"well-known"
    for _ in range(20_000):
        path = b"/" + bytes(alphabet[byte % len(alphabet)] for byte in generator.randbytes(24))
        decoded = decode_path(path)
        if isinstance(decoded, int):
            assert decoded in (NO_FILE, RC_PROTO)
            continue
        text, is_directory, _ = decoded
        segments = text.split(b"/")
        assert is_directory == (segments[-1] == b"")
        if is_directory:
            segments.pop()
        for place, segment in enumerate(segments):
            assert segment
            assert not segment.startswith(b".") or (place == 0 and segment == b".well-known")
            assert not any(byte < 32 or byte in b"\x7f\\" for byte in segment)
        text.decode()


@pytest.mark.parametrize(
    ("path", "location"),
    [
        (b"/a", b"/a/"),
        (b"//evil.example", b"/evil.example/"),
        (b"/a%20b/c%3fd", b"/a%20b/c%3Fd/"),
        (b"/gr%C3%BC", b"/gr%C3%BC/"),
        (b"/x%3a%22%27%3c%3e%23", b"/x%3A%22%27%3C%3E%23/"),
        (b"/", b"/"),
        (b"/a/", b"/a/"),
    ],
)
def test_encode_directory_has_one_slash_at_each_end(path, location):
    assert encode_directory(path) == location


def test_encode_directory_is_decoded_to_the_same():
    longest = b"/" + b"%C3%BC" * 2000
    location = encode_directory(longest)
    assert decode_path(location) == (("ü" * 2000 + "/").encode(), True, b"")
