"""Routes: the line of the route table, and the replies of handlers that are more than a struct."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import msgspec

from spokes.admin.context import Scope
from spokes.admin.schema.envelope import Answer, Request

JSON = "application/json"


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionCookie:
    """The cookie of a session; an empty value takes it away."""

    value: str = field(repr=False)
    max_age_s: int


BODY_BYTES_MAX = 256 * 1024
LIST_BODY_BYTES_MAX = 1024 * 1024        # of rules or names, hundreds of them
SITES_BODY_BYTES_MAX = 4 * 1024 * 1024   # a site may hold certificates
UNAUTHENTICATED_BODY_BYTES_MAX = 16 * 1024     # of who has not signed in: as objects, a body takes thirty times as much


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer with more than a body: for the few handlers that need it."""

    answer: Answer | None = None
    session: SessionCookie | None = None
    device: SessionCookie | None = None  # lets the next login from this device come first
    media_type: str = JSON
    chunks: Iterable[bytes] = ()         # an export, written as it is read


@dataclass(frozen=True, slots=True)
class Route:
    """One endpoint. `handler(admin, caller, body, **path_params)`; `body` is a Request struct, or None without one.

    Request, answer, query and summary are read from the handler's signature and docstring where they are not given, and
    the scope from the method. A handler with a `query` parameter gets the query string in that struct.
    """

    method: str
    path: str
    handler: Callable[..., Answer | Reply]
    request: type[Request] | None = None
    answer: type[Answer] = Answer
    query: type[msgspec.Struct] | None = None
    scope: Scope | None = None
    public: bool = False                 # needs no session
    admin_only: bool = False
    media_types: tuple[str, ...] = (JSON,)
    summary: str = ""
    whole_list: bool = False             # of tunnels, not of a page of them
    bytes_max: int = BODY_BYTES_MAX      # of a body, of who is signed in
    statuses: tuple[int, ...] = ()       # refusals beyond those that every route of its form has

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(self.handler)
        found: dict[str, object] = {
            "request": self.request or _struct(hints.get("body"), Request),
            "query": self.query or _struct(hints.get("query"), msgspec.Struct),
            "scope": self.scope or (Scope.READ if self.method == "GET" else Scope.WRITE),
            "summary": self.summary or (inspect.getdoc(self.handler) or "").partition("\n")[0],
        }
        if self.answer is Answer:
            found["answer"] = _struct(hints.get("return"), Answer) or Answer
        for name, value in found.items():
            object.__setattr__(self, name, value)

    @property
    def body_bytes_max(self) -> int:
        return UNAUTHENTICATED_BODY_BYTES_MAX if self.public else self.bytes_max

    @property
    def path_params(self) -> tuple[str, ...]:
        return tuple(part[1:-1] for part in self.path.split("/") if part.startswith("{"))


def _struct(hint: object, base: type) -> type | None:
    """`hint` itself, or the part of a union, that is a struct of this kind."""
    for one in (hint, *typing.get_args(hint)):
        if isinstance(one, type) and issubclass(one, base):
            return one
    return None
