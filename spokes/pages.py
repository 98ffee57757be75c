"""The pages that visitors get when there is nothing else to show: one template, no scripts, nothing from elsewhere.

Server and client hand them to the engine, which answers by itself: `_fastpath/http/page.pxd` has the same codes as an
enumeration. docs/errors.md explains every code.
"""

from __future__ import annotations

import json
from typing import Final, NamedTuple, Protocol

CONTENT_TYPE: Final = "text/html; charset=utf-8"
JSON_SUFFIX: Final = ".json"  # of the code of a page for callers of the API


class Page(NamedTuple):
    """Status and words; the words are ours and plain, so nothing needs escaping but what the test refuses."""

    status: int
    title: str
    text: str
    retry_after_s: int = 0  # 0: the page does not say when to come back


REASON_PHRASES: Final = {
    200: "OK", 308: "Permanent Redirect", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed",
    408: "Request Timeout", 412: "Precondition Failed", 413: "Content Too Large", 414: "URI Too Long",
    416: "Range Not Satisfiable", 421: "Misdirected Request", 431: "Request Header Fields Too Large",
    501: "Not Implemented", 502: "Bad Gateway", 503: "Service Unavailable", 504: "Gateway Timeout",
    505: "HTTP Version Not Supported", 508: "Loop Detected",
}  # fmt: skip


class PageTaker(Protocol):
    """The engine, as far as pages go."""

    def set_page(
        self, code: str, *, status: int, content_type: str, body: bytes, retry_after_s: int = 0
    ) -> None: ...


PAGES: Final[dict[str, Page]] = {
    "SPK-WELCOME": Page(
        200, "It works", "A Spokes server runs here. Tunnels have host names of their own below this one."
    ),
    "SPK-BAD-REQUEST": Page(400, "Bad request", "The request does not follow HTTP, so nobody was asked to answer it."),
    "SPK-UNKNOWN-HOST": Page(404, "Nothing is served here", "No tunnel serves this host name. Check the spelling."),
    "SPK-NO-RULE": Page(
        404, "No service here yet", "The tunnel of this name is on-line, but leads this name to no service."
    ),
    "SPK-NO-FILE": Page(404, "Not found", "There is no such page on this site. Check the spelling."),
    "SPK-METHOD": Page(405, "Only for reading", "This site has pages to read; it takes nothing in."),
    "SPK-TIMEOUT": Page(408, "Too slow", "The request did not arrive in time."),
    "SPK-PRECONDITION": Page(412, "Changed meanwhile", "The file is not the one that the request asked for."),
    "SPK-BODY-TOO-LARGE": Page(
        413, "Too much at once", "The request brings more than this site takes in one request."
    ),
    "SPK-TARGET-TOO-LONG": Page(414, "Address too long", "The address that was asked for is longer than allowed."),
    "SPK-RANGE": Page(416, "No such part", "The file ends before the part that the request asked for."),
    "SPK-HTTPS": Page(308, "Moved to https", "This site is served with https alone. Use the same address with https."),
    "SPK-PLAIN-HTTP": Page(400, "Use https", "This port speaks TLS. Use the same address with https."),
    "SPK-MISDIRECTED": Page(421, "Wrong connection", "This connection was made for another host name. Open a new one."),
    "SPK-HEAD-TOO-LARGE": Page(431, "Header too large", "The request's header is larger than allowed."),
    "SPK-UNSUPPORTED": Page(501, "Not supported", "The request uses a part of HTTP that is not supported here."),
    "SPK-UPSTREAM-BROKEN": Page(502, "Broken answer", "The service behind the tunnel sent something that is not HTTP."),
    "SPK-UPSTREAM-BODY": Page(
        502, "Broken answer", "The service behind the tunnel sent an answer whose parts do not fit together."
    ),
    "SPK-UPSTREAM-CLOSED": Page(
        502, "No answer", "The service behind the tunnel closed the connection without an answer."
    ),
    "SPK-UPSTREAM-HEAD": Page(
        502, "Answer too large", "The header of the answer from the service behind the tunnel is larger than allowed."
    ),
    "SPK-UPSTREAM-NAME": Page(
        502, "Service not found", "The tunnel is up, but the name of its service has no address."
    ),
    "SPK-UPSTREAM-RESET": Page(
        502, "No answer", "The service behind the tunnel broke the connection off before an answer."
    ),
    "SPK-UPSTREAM-TLS": Page(
        502, "Service speaks TLS", "The service behind the tunnel wants an encrypted connection and was asked without."
    ),
    "SPK-UPSTREAM-REFUSED": Page(
        502, "Service not running", "The tunnel is up, but its service refused the connection."
    ),
    "SPK-UPSTREAM-UNREACHABLE": Page(
        502, "Service not reachable", "The tunnel is up, but its service cannot be reached."
    ),
    "SPK-WEBROOT": Page(502, "Files not available", "The tunnel is up, but the directory of this site cannot be read."),
    "SPK-ADMIN-DOWN": Page(
        503,
        "Administration not running",
        "The tunnels of this server work, but its administration does not answer. Try again in a moment.",
        retry_after_s=2,
    ),
    "SPK-BANDWIDTH": Page(
        503, "Traffic used up", "The traffic that this tunnel may have in a month is used up. Tell its owner."
    ),
    "SPK-LIMIT": Page(503, "Too busy", "A limit was reached. Try again in a moment."),
    "SPK-OFFLINE": Page(
        503, "Tunnel off-line", "This tunnel is known, but its client is not connected. Try again later."
    ),
    "SPK-UPSTREAM-TIMEOUT": Page(504, "Service too slow", "The service behind the tunnel did not answer in time."),
    "SPK-LOOP": Page(
        508, "A loop", "The request has been here before: the service behind the tunnel leads back to this server."
    ),
    "SPK-HTTP-VERSION": Page(505, "Another HTTP", "The request is in a version of HTTP that is not spoken here."),
}

_TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --ink: #1c2430; --soft: #5b6675; --ground: #f6f7f9; --card: #fff; --line: #e1e5ea }}
@media (prefers-color-scheme: dark) {{
  :root {{ --ink: #e8ecf1; --soft: #98a3b3; --ground: #12161c; --card: #1a2029; --line: #2b333f }}
}}
body {{ margin: 0; min-height: 100vh; display: grid; place-items: center; background: var(--ground); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif }}
main {{ box-sizing: border-box; max-width: 30rem; margin: 1rem; padding: 2rem; background: var(--card);
  border: 1px solid var(--line); border-radius: 12px }}
h1 {{ margin: 0 0 .5rem; font-size: 1.4rem }}
p {{ margin: 0; color: var(--soft) }}
code {{ display: inline-block; margin-top: 1.25rem; color: var(--soft); font-size: .85rem }}
</style>
</head>
<body>
<main>
<h1>{title}</h1>
<p>{text}</p>
<code>{code}</code>
</main>
</body>
</html>
"""


def render_page(code: str) -> bytes:
    page = PAGES[code]
    return _TEMPLATE.format(code=code, title=page.title, text=page.text).encode()


def render_json(code: str) -> bytes:
    """The envelope of the Admin API's answers."""
    return json.dumps({"status": False, "error": PAGES[code].text, "code": code}).encode()


def hand_pages(engine: PageTaker) -> None:
    """Gives every page to the engine, in both its forms; before its start."""
    for code, page in PAGES.items():
        engine.set_page(
            code,
            status=page.status,
            content_type=CONTENT_TYPE,
            body=render_page(code),
            retry_after_s=page.retry_after_s,
        )
        engine.set_page(
            code + JSON_SUFFIX,
            status=page.status,
            content_type="application/json",
            body=render_json(code),
            retry_after_s=page.retry_after_s,
        )
