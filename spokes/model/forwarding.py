"""Forwarded operations: what a replica sends to the master in place of a change of its own, and what comes back.

A replica performs nothing: `Store.forward` is set there, and perform() hands each operation to a Forwarder. At the
master perform_forwarded() does it: the principal's rights are held against the master's own rows, in the transaction
that writes; the result is kept in the same transaction under the call's idempotency key, so that a call whose answer
was lost can be made again. Sans-I/O: whoever connects the two nodes carries bytes.

A principal travels as kind, ids, role and scopes, never with rights that count unchecked: `checked` is no member here,
so what claims it is malformed. A cookie session is known to its own node alone, which looks at it before it forwards.
Bound: FORWARDED_BYTES_MAX; results as long and as many as store/operation_results.py says.
Fails: ClusterMessageError (malformed), OperationUnknownError (of another version), IdempotencyKeyError, and whatever
the operation refuses: as the same error at both ends.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any, Generic, Literal, TypeVar

import msgspec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from spokes.errors import (
    ClusterMessageError,
    ForbiddenError,
    IdempotencyKeyError,
    OperationUnknownError,
    ReplicaError,
    SpokesError,
    UnreachableError,
    ValueRefusedError,
)
from spokes.ids import ZERO_UID, new_secret
from spokes.model.authority import standing
from spokes.model.error_values import ErrorValue, error_value, made_error
from spokes.model.operation import (
    Operation,
    Work,
    decode_result,
    encode,
    encode_result,
    operations,
)
from spokes.store import Principal, PrincipalKind, Store
from spokes.store.changes import Writer
from spokes.store.operation_results import StoredResult
from spokes.store.principal import acting
from spokes.store.rows import ADMIN_ROLE, ROLES, SCOPES

R = TypeVar("R")

FORWARDED_BYTES_MAX = 8 * 1024 * 1024    # the largest operation is a list of rules: 4 MB of a body of the Admin API
SEND_COUNT_MAX = 3                       # of one call, whose answers are lost
_NONCE_BYTES = 12

_Uid = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$")]
_Text = Annotated[str, msgspec.Meta(max_length=255)]
_Key = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
_Number = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class _Principal(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, rename="camel"):
    """A principal on its way. The server is none: what it does by itself it does at the master."""

    kind: Literal["nobody", "key", "person", "shell", "client"]
    uid: _Uid = ZERO_UID
    name: _Text = ""
    address: _Text = ""
    user_uid: _Uid = ZERO_UID
    role: Annotated[str, msgspec.Meta(max_length=16)] = ""
    scopes: Annotated[tuple[_Text, ...], msgspec.Meta(max_length=len(SCOPES))] = ()
    login_uid: Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{32})?$")] = ""


class _Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    operation: msgspec.Raw
    principal: _Principal
    idempotency_key: _Key


class _Answer(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Either `error`, or the position after the commit and the result."""

    epoch: _Number = 0
    seq: _Number = 0
    result: msgspec.Raw = msgspec.Raw(b"null")
    error: ErrorValue | None = None


class _Tag(msgspec.Struct):
    operation: str


@dataclass(frozen=True, slots=True)
class Forwarded:
    """An operation, on whose behalf it is asked for, and what tells this call from all others (new_key())."""

    operation: Operation[Any]
    principal: Principal
    idempotency_key: str


@dataclass(frozen=True, slots=True)
class Performed(Generic[R]):
    """The result, and the master's position after the commit: a replica that has applied so much can show it."""

    result: R
    epoch: int
    seq: int


def new_key() -> str:
    return new_secret()


# --- as text -------------------------------------------------------------------------------------------------------


def encode_forwarded(forwarded: Forwarded) -> bytes:
    """Fails: ForbiddenError for a principal that does not travel, ValueRefusedError for text that is no UTF-8."""
    principal = forwarded.principal
    if not principal.checked or principal.kind == PrincipalKind.SERVER:
        raise ForbiddenError("what a node does on its own account is not forwarded")
    try:
        return msgspec.json.encode(_Message(
            msgspec.Raw(encode(forwarded.operation)),
            _Principal(
                principal.kind, principal.uid, principal.name[:255], principal.address[:255], principal.user_uid,  # type: ignore[arg-type]
                principal.role, principal.scopes, principal.login_uid,
            ),
            forwarded.idempotency_key,
        ))
    except UnicodeEncodeError:
        raise ValueRefusedError("a text holds characters that cannot be stored") from None


def decode_forwarded(data: bytes) -> Forwarded:
    if len(data) > FORWARDED_BYTES_MAX:
        raise ClusterMessageError(f"a forwarded operation has at most {FORWARDED_BYTES_MAX} bytes")
    try:
        message = msgspec.json.decode(data, type=_Message)
        name = msgspec.json.decode(message.operation, type=_Tag).operation
        kind = operations().get(name)
        if kind is None:
            raise OperationUnknownError(
                f"this node knows no operation {name[:64]!r}", hint="install the same version on all nodes"
            )
        operation = msgspec.json.decode(message.operation, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ClusterMessageError(f"not a forwarded operation: {error}") from None
    return Forwarded(operation, _read_principal(message.principal), message.idempotency_key)


def _read_principal(sent: _Principal) -> Principal:
    """The principal, whose members must fit each other as they do where principals are made."""
    is_admin, names = sent.role == ADMIN_ROLE, set(sent.scopes)
    owns = {PrincipalKind.PERSON: sent.uid, PrincipalKind.KEY: sent.user_uid}.get(PrincipalKind(sent.kind), ZERO_UID)
    match sent.kind:
        case PrincipalKind.PERSON | PrincipalKind.KEY:
            fits = sent.role in ROLES and sent.uid != ZERO_UID
        case PrincipalKind.SHELL:
            fits = is_admin and not sent.login_uid
        case _:
            fits = not sent.role and not names and not sent.login_uid
    if not fits or owns != sent.user_uid or not names <= set(SCOPES):
        raise ClusterMessageError("not a principal: its members do not fit each other")
    return Principal(
        kind=sent.kind, uid=sent.uid, name=sent.name, address=sent.address, user_uid=sent.user_uid, role=sent.role,
        scopes=sent.scopes, login_uid=sent.login_uid,
    )


def encode_answer(performed: Performed[Any] | SpokesError) -> bytes:
    if isinstance(performed, SpokesError):
        return msgspec.json.encode(_Answer(error=error_value(performed)))
    return msgspec.json.encode(_Answer(performed.epoch, performed.seq, msgspec.Raw(encode_result(performed.result))))


def decode_answer(kind: type[Operation[R]], data: bytes) -> Performed[R]:
    """Fails: the error that the answer holds; ClusterMessageError where it is none of such an operation."""
    try:
        answer = msgspec.json.decode(data, type=_Answer)
        if answer.error is None:
            return Performed(decode_result(kind, bytes(answer.result)), answer.epoch, answer.seq)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ClusterMessageError(f"not the answer to a forwarded operation: {error}") from None
    raise made_error(answer.error)


# --- at the master -------------------------------------------------------------------------------------------------


def answer_forwarded(store: Store, data: bytes) -> bytes:
    """Performs what a replica sent and returns the answer, be it a refusal. Errors nobody raised on purpose pass."""
    try:
        return encode_answer(perform_forwarded(store, decode_forwarded(data)))
    except SpokesError as error:
        return encode_answer(error)


def perform_forwarded(store: Store, forwarded: Forwarded) -> Performed[Any]:
    """Performs an operation that another node sent, once for each idempotency key.

    A key that was used before gives its first result, whatever became of the principal since: it tells only what was
    done on that principal's behalf, to who made the key.
    """
    if store.forward is not None:
        raise ReplicaError("this node is no master: changes are made at the master", hint="ask the master")
    operation, principal = forwarded.operation, forwarded.principal
    key = bytes.fromhex(forwarded.idempotency_key)
    asked = encode(operation) + f"\0{principal.kind}\0{principal.uid}".encode()
    digest = hashlib.sha256(asked).hexdigest()
    with acting(principal) if principal.is_audited else contextlib.nullcontext(), store.changes.transaction() as tx:
        known = store.operation_results.find(tx, _name(key))
        if known is not None:
            if known.digest != digest:
                raise IdempotencyKeyError("the idempotency key was used for another operation")
            return Performed(decode_result(type(operation), _opened(key, known.result)), known.epoch, known.seq)
        for check in standing(replace(principal, login_uid="")):
            check(tx)
        work = _WorkInside(store, principal, tx)
        work.check_may_ask(type(operation))
        result = operation.apply(work)
        performed = Performed(result, tx.epoch, tx.seq)
        sealed = _sealed(key, encode_result(result))
        store.operation_results.put(tx, _name(key), StoredResult(digest, tx.epoch, tx.seq, sealed))
    return performed


class _WorkInside(Work):
    """In a transaction that is open already."""

    def __init__(self, store: Store, principal: Principal, tx: Writer) -> None:
        super().__init__(store, principal)
        self._tx = tx

    def transaction(self) -> contextlib.AbstractContextManager[Writer]:
        return contextlib.nullcontext(self._tx)


# A result may hold what one logs in with. It is kept for whoever has the key and no one else: under the key's hash, and
# encrypted with it.


def _name(key: bytes) -> str:
    return hashlib.sha256(b"spokes operation name 1" + key).hexdigest()


def _cipher(key: bytes) -> AESGCM:
    return AESGCM(hashlib.sha256(b"spokes operation result 1" + key).digest())


def _sealed(key: bytes, result: bytes) -> bytes:
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + _cipher(key).encrypt(nonce, result, None)


def _opened(key: bytes, sealed: bytes) -> bytes:
    return _cipher(key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], None)


# --- at a replica --------------------------------------------------------------------------------------------------


class Forwarder:
    """Gives operations to the master: what Store.forward is set to at a replica. Blocks until the answer is there.

    `send` carries bytes to the master and returns its answer (answer_forwarded), or raises UnreachableError where none
    came; the same bytes are then sent again, SEND_COUNT_MAX times in all. `wait_applied(epoch, seq)` returns when this
    node has applied so much, or when it has waited long enough: the change is made either way.
    """

    def __init__(
        self, store: Store, send: Callable[[bytes], bytes], wait_applied: Callable[[int, int], None]
    ) -> None:
        self._store = store
        self._send = send
        self._wait_applied = wait_applied

    def __call__(self, principal: Principal, operation: Operation[R]) -> R:
        self._store.audit.require(*standing(principal))      # its session is known here alone
        data = encode_forwarded(Forwarded(operation, principal, new_key()))
        performed = decode_answer(type(operation), self._sent(data))
        self._wait_applied(performed.epoch, performed.seq)
        return performed.result

    def _sent(self, data: bytes) -> bytes:
        for _ in range(SEND_COUNT_MAX - 1):
            with contextlib.suppress(UnreachableError):
                return self._send(data)
        return self._send(data)
