"""Dispatch of calls from HTTP to the handlers: the checks that all calls share, in one order, and one form of answer.

Order: path, method, headers, session, body, session again. Whatever goes wrong, the answer is the envelope.
Bound: a route's body_bytes_max; how long a body may take is the transport's (process.py).
Source: docs/admin-api.md, "Transport".
"""

from __future__ import annotations

import logging
import math
import socket
import urllib.parse
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext, suppress
from datetime import UTC, datetime
from typing import Any

import falcon
import msgspec
from gunicorn.http.errors import ParseException

from spokes.admin.body_slots import BodySlots
from spokes.admin.context import Admin, Caller, CallerKind
from spokes.admin.decode import decode_body, decode_query, decode_uid
from spokes.admin.long_lists import long_list_slot
from spokes.admin.routing import JSON, Reply, Route, SessionCookie
from spokes.admin.schema.envelope import failure
from spokes.admin.sending import SOURCE
from spokes.errors import (
    ControlError,
    ForbiddenError,
    LoginDelayedError,
    NoServerError,
    NotSignedInError,
    PeerError,
    RequestError,
    SpokesError,
    StoreError,
)
from spokes.ids import ZERO_UID
from spokes.model.authority import NOT_SIGNED_IN, standing
from spokes.store.logins import source_key

log = logging.getLogger(__name__)

AGENT_CHARS_MAX = 255
OWN_ERROR_TEXTS = {
    StoreError.code: "the server's store cannot be used now; its log says why",
    ControlError.code: "the server does not answer its administration; its log says why",
    NoServerError.code: "the server does not run",
}

# The prefix binds a cookie to this host name and to TLS, so that no neighbour under the same domain can set one.
SECURE_COOKIE = "__Host-spokes"
PLAIN_COOKIE = "spokes"
DEVICE_SUFFIX = "-device"                # of the cookie that tells a device on which somebody has logged in

_LOOK = socket.MSG_PEEK | socket.MSG_DONTWAIT
_LONG_AGO = datetime.fromtimestamp(0, UTC)

Authenticate = Callable[[Admin, falcon.Request], Caller]

_encoder = msgspec.json.Encoder()


class Resource:
    """What answers at one path, and to which methods; Falcon would answer others, OPTIONS among them, by itself."""

    methods: tuple[str, ...] = ("GET",)


class Endpoint(Resource):
    """The routes of one path."""

    def __init__(
        self, admin: Admin, routes: Sequence[Route], authenticate: Authenticate, body_slots: BodySlots
    ) -> None:
        self._admin = admin
        self._authenticate = authenticate
        self._body_slots = body_slots
        self._routes = {route.method: route for route in routes}
        self.methods = tuple(self._routes)

    def on_get(self, req: falcon.Request, resp: falcon.Response, **path_params: str) -> None:
        self._answer(req, resp, path_params)

    on_post = on_get

    def _answer(self, req: falcon.Request, resp: falcon.Response, path_params: dict[str, str]) -> None:
        route = self._routes[req.method]
        _check_headers(req, route)
        caller = self._caller(req, route)
        params: dict[str, Any] = {name: decode_uid(text) for name, text in path_params.items()}
        if route.query is not None:
            params["query"] = decode_query(dict(urllib.parse.parse_qsl(req.query_string)), route.query)
        is_known = caller.kind is not CallerKind.NOBODY
        source = _share_of(caller) if is_known else source_key(caller.address)
        req.env[SOURCE] = source
        with ExitStack() as held:
            body = None
            if route.request is not None:
                length = _check_length(req, route.body_bytes_max)
                held.enter_context(self._body_slots.room(source, length))
                with nullcontext() if _is_here(req) else self._body_slots.slot(source, signed_in=is_known):
                    body = decode_body(_read_body(req, route.body_bytes_max), route.request)
                # Rights may have gone while the body came.
                self._admin.store.audit.require(*standing(caller.principal()))
            if route.whole_list:
                held.enter_context(long_list_slot(self._admin.store))
            answer = route.handler(self._admin, caller, body, **params)
            _write(resp, answer if isinstance(answer, Reply) else Reply(answer=answer), caller)
            del answer                   # as objects it takes several times what its text does

    def _caller(self, req: falcon.Request, route: Route) -> Caller:
        if route.public:
            return caller_without_session(req)
        caller = self._authenticate(self._admin, req)
        if caller.kind is CallerKind.NOBODY:
            raise NotSignedInError(NOT_SIGNED_IN)
        if route.scope not in caller.scopes:
            raise ForbiddenError(f"this key lacks the scope: {route.scope}")
        if route.admin_only:
            caller.check_admin()
        return caller


class Entrance:
    """Falcon middleware: paths in one form before routing, methods checked behind it, headers of every answer."""

    def __init__(self, path_prefix: str = "") -> None:
        self._prefix = path_prefix.rstrip("/")

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        path = "/" + req.path.lstrip("/")                # a base address that ends in a slash gives two of them
        if self._prefix and path.startswith(self._prefix + "/"):
            path = "/" + path.removeprefix(self._prefix).lstrip("/")
        req.path = path

    def process_resource(
        self, req: falcon.Request, resp: falcon.Response, resource: object, params: dict[str, Any]
    ) -> None:
        if isinstance(resource, Resource) and req.method not in resource.methods:
            raise falcon.HTTPMethodNotAllowed(list(resource.methods))

    def process_response(
        self, req: falcon.Request, resp: falcon.Response, resource: object, req_succeeded: bool
    ) -> None:
        resp.set_header("X-Content-Type-Options", "nosniff")
        if resp.get_header("Cache-Control") is None:
            resp.set_header("Cache-Control", "no-store")


# --- the request ---------------------------------------------------------------------------------------------------


def caller_without_session(req: falcon.Request) -> Caller:
    return Caller(
        address=source_of(req), agent=agent_of(req), secure=is_secure(req), cookie=cookie_of(req),
        device=cookie_of(req, DEVICE_SUFFIX),
    )


def source_of(req: falcon.Request) -> str:
    """The visitor's address, as the engine saw it: it replaces what the visitor claims."""
    return req.get_header("X-Real-IP") or req.remote_addr or ""


def agent_of(req: falcon.Request) -> str:
    return (req.user_agent or "")[:AGENT_CHARS_MAX]


def is_secure(req: falcon.Request) -> bool:
    """Whether the visitor came over TLS, as the engine says."""
    return req.get_header("X-Forwarded-Proto") == "https"


def cookie_of(req: falcon.Request, suffix: str = "") -> str:
    """The session's cookie, or another of ours; over TLS only the one that no neighbour can have set."""
    values = req.get_cookie_values((SECURE_COOKIE if is_secure(req) else PLAIN_COOKIE) + suffix)
    return values[0] if values else ""


def _check_headers(req: falcon.Request, route: Route) -> None:
    # These two keep forms and images of other sites away from the calls, some of which change state by GET: a browser
    # asks first before it sends such a Content-Type, and is told no.
    if _media_type(req.content_type or "") != JSON:
        raise RequestError(f"Content-Type must be {JSON}", http_status=415)
    accepted = {_media_type(part) for part in (req.get_header("Accept") or "").split(",")}
    if accepted.isdisjoint(route.media_types):
        raise RequestError(f"Accept must name {route.media_types[0]}", http_status=406)
    _check_origin(req)


def _check_origin(req: falcon.Request) -> None:
    """Tenants' pages are same-site with this API, so SameSite alone protects nothing."""
    site = req.get_header("Sec-Fetch-Site")
    if site is not None and site not in ("same-origin", "none"):
        raise ForbiddenError("requests of other sites are refused")
    origin = req.get_header("Origin")
    if origin is None:
        return
    try:
        parts = urllib.parse.urlsplit(origin)
        same = parts.netloc.lower() == (req.get_header("Host") or "").lower() and parts.netloc != ""
    except ValueError:
        same = False
    if not same or (is_secure(req) and parts.scheme != "https"):
        raise ForbiddenError("requests of other sites are refused")


def _media_type(text: str) -> str:
    return text.partition(";")[0].strip().lower()


def _share_of(caller: Caller) -> str:
    """All keys and sessions of one user take from one share; a key of the system has its own."""
    return caller.user_uid if caller.user_uid != ZERO_UID else caller.uid


def _check_length(req: falcon.Request, bytes_max: int) -> int:
    """How long the body is, or may be where its head does not say."""
    length = req.content_length
    if length is None:
        return bytes_max if req.env.get("wsgi.input_terminated") else 0
    if length > bytes_max:
        raise _too_large(bytes_max)
    return length


def _is_here(req: falcon.Request) -> bool:
    """Whether the whole body has come, or there is none: reading it waits for nobody. What cannot be known is no."""
    length = req.content_length
    if not length:
        return length == 0 or not req.env.get("wsgi.input_terminated")
    # What gunicorn read behind the head (no WSGI server tells how much that is), then what the kernel has.
    with suppress(AttributeError, OSError):
        missing: int = length - req.env["wsgi.input"].reader.unreader.buf.getbuffer().nbytes
        return missing <= 0 or len(req.env["gunicorn.socket"].recv(missing, _LOOK)) == missing
    return False


def _read_body(req: falcon.Request, bytes_max: int) -> bytes:
    length = req.content_length
    if length is None and not req.env.get("wsgi.input_terminated"):
        return b""                       # no length and not chunked: no body
    stream = req.env["wsgi.input"]
    try:
        data: bytes = stream.read(bytes_max + 1 if length is None else length)
    except OSError:
        raise _cut_short() from None
    except ParseException:
        raise RequestError("the body's chunks are malformed") from None
    if len(data) > bytes_max:
        raise _too_large(bytes_max)
    if length is not None and len(data) < length:
        raise _cut_short()
    return data


def _too_large(bytes_max: int) -> RequestError:
    return RequestError(f"the body is larger than {bytes_max} bytes", http_status=413)


def _cut_short() -> RequestError:
    return RequestError("the body did not arrive whole in time", http_status=408)


# --- the answer ----------------------------------------------------------------------------------------------------


def _write(resp: falcon.Response, reply: Reply, caller: Caller) -> None:
    if reply.session is not None:        # first: simple programs read the first cookie alone
        _set_cookie(resp, reply.session, caller.secure)
    if reply.device is not None:
        _set_cookie(resp, reply.device, caller.secure, DEVICE_SUFFIX)
    resp.content_type = reply.media_type
    if reply.answer is not None:
        resp.data = _encoder.encode(reply.answer)
    else:
        resp.stream = reply.chunks


def _set_cookie(resp: falcon.Response, session: SessionCookie, secure: bool, suffix: str = "") -> None:
    """No Domain, and a Path that covers everything: existing clients lose other cookies."""
    resp.set_cookie(
        (SECURE_COOKIE if secure else PLAIN_COOKIE) + suffix, session.value, max_age=session.max_age_s or None,
        expires=None if session.max_age_s else _LONG_AGO, path="/", secure=secure, http_only=True, same_site="Strict",
    )


def write_failure(resp: falcon.Response, http_status: int, text: str, code: str = "") -> None:
    resp.status = falcon.code_to_http_status(http_status)
    resp.content_type = JSON
    resp.data = _encoder.encode(failure(text, code))


def on_spokes_error(req: falcon.Request, resp: falcon.Response, error: SpokesError, params: dict[str, Any]) -> None:
    status = 503 if isinstance(error, ControlError) else error.http_status
    if not isinstance(error, PeerError):
        log.warning("call failed", extra={"path": req.path, "error": str(error), "code": error.code})
    if isinstance(error, LoginDelayedError):
        resp.set_header("Retry-After", str(max(1, math.ceil(error.retry_after_s))))
    write_failure(resp, status, _error_text(error), error.code)


def _error_text(error: SpokesError) -> str:
    """What the caller is told. Errors of ours name paths and hosts: those are for the log, whoever calls."""
    was_refused = isinstance(error, ControlError) and error.code not in (ControlError.code, NoServerError.code)
    if not isinstance(error, PeerError) and not was_refused:
        return OWN_ERROR_TEXTS.get(error.code, "the server cannot do this now; its log says why")
    return f"{error}; {error.hint}" if error.hint else str(error)


def on_http_error(req: falcon.Request, resp: falcon.Response, error: falcon.HTTPError, params: dict[str, Any]) -> None:
    """Falcon's own refusals: unknown paths, methods, malformed headers."""
    words = {404: "there is nothing at this path", 405: "this path is not for this method"}
    for name, value in (dict(error.headers) if error.headers else {}).items():
        resp.set_header(name, value)
    write_failure(resp, error.status_code, words.get(error.status_code, error.title or "refused"), RequestError.code)


def on_unexpected_error(req: falcon.Request, resp: falcon.Response, error: Exception, params: dict[str, Any]) -> None:
    log.error("handler failed", extra={"path": req.path, "method": req.method}, exc_info=error)
    write_failure(resp, 500, "the server failed; its log says why", SpokesError.code)


