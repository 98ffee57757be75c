"""Pages: one for every code, small, plain, and explained."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

import spokes.errors
from spokes.client.service_health import FAULT_WORDS
from spokes.pages import CONTENT_TYPE, JSON_SUFFIX, PAGES, REASON_PHRASES, hand_pages, render_json, render_page
from tests.support.fake_engine import FakeEngine

ERRORS_MD = Path(__file__).parent.parent / "docs" / "errors.md"
STATUS = {
    "SPK-UNKNOWN-HOST": 404, "SPK-OFFLINE": 503, "SPK-UPSTREAM-REFUSED": 502, "SPK-UPSTREAM-UNREACHABLE": 502,
    "SPK-UPSTREAM-TIMEOUT": 504, "SPK-UPSTREAM-BROKEN": 502, "SPK-BAD-REQUEST": 400, "SPK-HEAD-TOO-LARGE": 431,
    "SPK-TIMEOUT": 408, "SPK-MISDIRECTED": 421, "SPK-UNSUPPORTED": 501, "SPK-LIMIT": 503, "SPK-WELCOME": 200,
    "SPK-NO-FILE": 404, "SPK-METHOD": 405, "SPK-PRECONDITION": 412, "SPK-RANGE": 416, "SPK-WEBROOT": 502,
    "SPK-ADMIN-DOWN": 503, "SPK-BANDWIDTH": 503, "SPK-TARGET-TOO-LONG": 414, "SPK-HTTP-VERSION": 505,
    "SPK-BODY-TOO-LARGE": 413, "SPK-NO-RULE": 404, "SPK-UPSTREAM-BODY": 502,
    "SPK-UPSTREAM-NAME": 502, "SPK-UPSTREAM-RESET": 502, "SPK-UPSTREAM-CLOSED": 502, "SPK-UPSTREAM-HEAD": 502,
    "SPK-UPSTREAM-TLS": 502, "SPK-LOOP": 508, "SPK-HTTPS": 308, "SPK-PLAIN-HTTP": 400,
}  # fmt: skip


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.seen = []
        self.attributes = []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        self.attributes += [name for name, _ in attrs]


def error_codes():
    kinds = [spokes.errors.SpokesError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    return {kind.code for kind in kinds}


def test_pages_every_code_has_its_status():
    assert {code: page.status for code, page in PAGES.items()} == STATUS


@pytest.mark.parametrize("code", PAGES)
def test_page_is_small_and_loads_nothing(code):
    body = render_page(code)
    tags = Tags()
    tags.feed(body.decode())
    assert len(body) < 4096
    assert code.encode() in body
    assert not {"script", "link", "img", "iframe", "object"} & set(tags.seen)
    assert not {"src", "href", "onload"} & set(tags.attributes)
    assert b"url(" not in body and b"{" not in re.sub(rb"<style>.*</style>", b"", body, flags=re.DOTALL)


def test_pages_every_status_has_its_phrase():
    assert {page.status for page in PAGES.values()} == REASON_PHRASES.keys()


def test_page_words_need_no_escaping():
    assert not [page for page in PAGES.values() if re.search(r"[<>&\"]", page.title + page.text)]


def test_hand_pages_gives_all_to_the_engine():
    engine = FakeEngine()
    hand_pages(engine)
    assert engine.pages == STATUS | {code + JSON_SUFFIX: status for code, status in STATUS.items()}
    assert CONTENT_TYPE == "text/html; charset=utf-8"
    engine.stop()


@pytest.mark.parametrize("code", PAGES)
def test_page_has_an_envelope_for_callers_of_the_api(code):
    answer = json.loads(render_json(code))
    assert (answer["status"], answer["code"]) == (False, code)
    assert answer["error"] and "%" not in answer["error"]


def test_errors_md_explains_every_code():
    explained = set(re.findall(r"^### (SPK-[A-Z-]+)$", ERRORS_MD.read_text(), flags=re.MULTILINE))
    assert explained == error_codes() | set(PAGES) | set(FAULT_WORDS) | {"SPK-SYSTEM"}


def test_errors_md_says_cause_and_fix_of_each():
    for section in ERRORS_MD.read_text().split("\n### ")[1:]:
        assert "\nCause: " in section and "\nFix: " in section, section[:40]
