"""Operations: how one is declared, performed, encoded and decoded.

An operation is a value with a stable name. It can be kept, sent to another node with its principal and performed there,
so its arguments and its result are plain data that `encode` and `decode` carry over. Its arguments are checked where it
is performed, in the transaction that writes.
"""

from __future__ import annotations

import functools
import typing
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Generic, TypeVar

import msgspec

from spokes.errors import ForbiddenError, NotFoundError, NotSignedInError, SpokesError
from spokes.model.authority import NOT_SIGNED_IN, standing
from spokes.model.error_values import ErrorValue, error_value, made_error
from spokes.store import Principal, PrincipalKind, Store, Tunnel
from spokes.store.changes import Writer
from spokes.store.principal import acting, checking
from spokes.store.rows import ADMIN_ROLE, SCOPES

R = TypeVar("R")

ADMIN_SCOPES = frozenset(("read", "write"))
WRITE = "write"                          # the scope without which nobody changes anything
USERS = frozenset((PrincipalKind.KEY, PrincipalKind.PERSON, PrincipalKind.SHELL, PrincipalKind.SERVER))
USERS_AND_CLIENTS = USERS | {PrincipalKind.CLIENT}   # a client, for its own tunnel alone
ANYBODY = frozenset(PrincipalKind)

# The server on its own account.
SYSTEM = Principal(kind=PrincipalKind.SERVER, role=ADMIN_ROLE, scopes=SCOPES)
UNAUTHENTICATED = Principal(kind=PrincipalKind.NOBODY)           # whoever shows a registration token


def client_of(tunnel_uid: str) -> Principal:
    """Returns the principal of a client, which is known by the session of its tunnel."""
    return Principal(kind=PrincipalKind.CLIENT, uid=tunnel_uid)


class Operation(msgspec.Struct, Generic[R], frozen=True, tag_field="operation", forbid_unknown_fields=True):
    """A change of the configuration as a value: its name, its arguments, and how it is applied; R is the result."""

    callers: ClassVar[frozenset[str]] = USERS        # kinds of principals that may ask for it
    admin_only: ClassVar[bool] = False

    def apply(self, work: Work) -> R:
        """Checks, writes and logs in one transaction."""
        raise NotImplementedError


class Work:
    """What one operation works with while it is applied: the store, the principal, and the checks of its rights."""

    def __init__(self, store: Store, principal: Principal) -> None:
        self.store = store
        self.principal = principal

    def transaction(self) -> AbstractContextManager[Writer]:
        """Opens the writing transaction; it fails if the principal's rights are gone."""
        return self.store.changes.transaction()

    def tunnel(self, tx: Writer, uid: str) -> Tunnel:
        """Returns a tunnel that is not deleted and that the principal may change."""
        tunnel = self.store.tunnels.live(tx, uid)
        self.check_sees(tunnel.uid if self.principal.kind == PrincipalKind.CLIENT else tunnel.user_uid, "tunnel")
        return tunnel

    def check_sees(self, owner_uid: str, what: str) -> None:
        """Raises NotFoundError for somebody else's object. A client's objects are those of its own tunnel."""
        principal = self.principal
        sees = owner_uid == principal.uid if principal.kind == PrincipalKind.CLIENT else principal.may_see(owner_uid)
        if not sees:
            raise NotFoundError(f"unknown {what}")

    def check_may_ask(self, operation: type[Operation[Any]]) -> None:
        """Refuses a principal that may not ask for such an operation, whatever object it names."""
        principal = self.principal
        if principal.kind not in operation.callers:
            if principal.kind == PrincipalKind.NOBODY:
                raise NotSignedInError(NOT_SIGNED_IN)
            raise ForbiddenError("a client may not ask for this")
        if principal.kind in USERS and WRITE not in principal.scopes:
            raise ForbiddenError(f"this key lacks the scope: {WRITE}")
        if operation.admin_only:
            self.check_admin()

    def check_admin(self) -> None:
        if not self.principal.is_admin:
            raise ForbiddenError("only administrators may do this")

    def check_may_make_admins(self) -> None:
        """Refuses a principal without every right of an administrator: whoever makes one, or sets the password of one,
        gets those rights."""
        self.check_admin()
        if not set(self.principal.scopes) >= ADMIN_SCOPES:
            raise ForbiddenError("this key lacks a scope that administrators have")


def perform(store: Store, principal: Principal, operation: Operation[R]) -> R:
    """Performs the operation on behalf of `principal`: the one way by which configuration changes. At a replica the
    master does it (forwarding.py).
    """
    if store.forward is not None:
        result: R = store.forward(principal, operation)
        return result
    checks = standing(principal)
    with acting(principal, *checks) if principal.is_audited else checking(*checks):
        work = Work(store, principal)
        work.check_may_ask(type(operation))
        return operation.apply(work)


# --- as text -------------------------------------------------------------------------------------------------------


@functools.cache
def operations() -> dict[str, type[Operation[Any]]]:
    """Returns all operations by their names."""
    import spokes.model.all  # noqa: F401  whoever performs one operation need not load the others

    found: dict[str, type[Operation[Any]]] = {}
    kinds = list(Operation.__subclasses__())
    for kind in kinds:
        kinds += kind.__subclasses__()
        if "." in (name := str(kind.__struct_config__.tag)):     # the others only share fields
            found[name] = kind
    return found


def encode(operation: Operation[Any]) -> bytes:
    return msgspec.json.encode(operation)


def decode(data: bytes) -> Operation[Any]:
    """Fails: msgspec.ValidationError, of an operation that this program does not know too."""
    found: Operation[Any] = _decoder().decode(data)
    return found


def encode_result(result: Any) -> bytes:
    return msgspec.json.encode(result, enc_hook=_plain)


def decode_result(kind: type[Operation[R]], data: bytes) -> R:
    """Returns the result of an operation of this kind."""
    result: R = msgspec.json.decode(data, type=result_type(kind), dec_hook=_made)
    return result


def result_type(kind: type[Operation[Any]]) -> Any:
    (base,) = kind.__orig_bases__  # type: ignore[attr-defined]
    return typing.get_args(base)[0]


@functools.cache
def _decoder() -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(typing.Union[tuple(operations().values())])  # noqa: UP007  made at run time


def _plain(value: Any) -> Any:
    """Encodes an error inside a result."""
    if isinstance(value, SpokesError):
        return error_value(value)
    raise NotImplementedError(f"{type(value).__name__} is not plain data")


def _made(kind: type[Any], value: Any) -> Any:
    if isinstance(kind, type) and issubclass(kind, SpokesError):
        return made_error(msgspec.convert(value, ErrorValue))
    raise NotImplementedError(f"{kind} is not plain data")
