"""Control messages as types; decoding is strict about known members and silent about unknown ones.

Bound: strings and lists have limits, a whole message too (parts.py). Fails: ProtocolError.
Source: docs/protocol.md, "Control messages".
"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from spokes.errors import ProtocolError, SpokesError
from spokes.wire.rules import LIST_COUNT_MAX, DomainName, PortNumber, ReadPorts, ReadSites, ShortText, TunConfig

PROTOCOL_VERSIONS = (1,)
PRESENCE_COUNT_MAX = 4096  # tunnels in one message

Uid = Annotated[str, Meta(pattern=r"\A[0-9a-f]{32}\Z")]
Secret = Annotated[str, Meta(min_length=1, max_length=255)]
Code = Annotated[str, Meta(pattern=r"\ASPK-[A-Z0-9-]{1,40}\Z")]
Words = Annotated[str, Meta(max_length=1000)]
UnixTime = Annotated[int, Meta(ge=0, le=2**53)]
Seconds = Annotated[float, Meta(ge=0, le=86400)]
Url = Annotated[str, Meta(max_length=512)]
Urls = Annotated[tuple[Url, ...], Meta(max_length=8)]
Nonce = Annotated[str, Meta(max_length=64)]
Incarnation = Annotated[str, Meta(pattern=r"\A[0-9a-f]{16}\Z")]  # of one run of a node
WorkerNumber = Annotated[int, Meta(ge=0, le=255)]
RequestId = Annotated[int, Meta(ge=0, le=2**53)]
RulesRev = Annotated[int, Meta(ge=0, le=2**53)]  # where a tunnel's rules stand; only grows


class Reason(IntEnum):
    """Why a stream or session ended: RESET carries it, `bye` too."""

    GONE = 1
    NO_SERVICE = 2
    REFUSED = 3
    UNREACHABLE = 4
    TIMEOUT = 5
    LIMIT = 6
    PROTOCOL = 7
    INTERNAL = 8
    DRAIN = 9


class Message(Struct, frozen=True, kw_only=True, tag_field="type", tag=str.lower):
    """What travels in CONTROL frames; the class's name in lower case is its `type`."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"  # members may be secret


class Agent(Struct, frozen=True, kw_only=True):
    """The program at the client's end."""

    version: ShortText = ""
    os: ShortText = ""
    arch: ShortText = ""


class ServerInfo(Struct, frozen=True, kw_only=True):
    version: ShortText = ""
    domain: DomainName = ""


class Fault(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A refusal inside an answer: a stable code and words for people; `retry`: the same may succeed later."""

    code: Code
    message: Words = ""
    retry: bool = False

    @classmethod
    def of(cls, error: SpokesError) -> Fault:
        return cls(code=error.code, message=error.told[:1000], retry=error.retryable)


class Hello(Message, frozen=True, kw_only=True):
    versions: Annotated[tuple[Annotated[int, Meta(ge=0, le=65535)], ...], Meta(min_length=1, max_length=64)]
    agent: Agent
    time: UnixTime


class Welcome(Message, frozen=True, kw_only=True):
    version: Annotated[int, Meta(ge=1, le=65535)]
    server: ServerInfo
    time: UnixTime
    nonce: Nonce = ""  # that a node signs, to show whose link it is


class Register(Message, frozen=True, kw_only=True):
    token: Secret
    name: ShortText = ""


class Registered(Message, frozen=True, kw_only=True):
    tunnel: Uid
    hostname: DomainName
    key: Secret


class Login(Message, frozen=True, kw_only=True):
    key: Secret
    mode: Literal["serve", "control"] = "serve"
    # this client sends `lead` when the primary link is lost
    supports_failover: bool = msgspec.field(default=False, name="moves")


class Ready(Message, frozen=True, kw_only=True):
    tunnel: Uid
    hostname: DomainName
    name: ShortText
    generation: Annotated[int, Meta(ge=0)]
    session: Annotated[str, Meta(max_length=255)]  # secret; empty in mode "control", where nothing can be joined
    config: TunConfig
    link_count_max: Annotated[int, Meta(ge=1, le=64)]
    rules_rev: RulesRev | None = None  # of `config`; None from a server that does not count
    # the session outlives its primary link as long as it has another
    supports_failover: bool = msgspec.field(default=False, name="moves")
    urls: Urls = ()  # where visitors reach the host name, plain HTTP first
    url: Url = ""  # the one of them to show; "" from a server that does not say


class Join(Message, frozen=True, kw_only=True):
    session: Secret


class Joined(Message, frozen=True, kw_only=True):
    pass


class Lead(Message, frozen=True, kw_only=True):
    """The leading link is lost: this one carries the session's messages from now on."""


class Leading(Message, frozen=True, kw_only=True):
    pass


class Bye(Message, frozen=True, kw_only=True):
    code: Code
    reason: Annotated[int, Meta(ge=0, le=65535)] = Reason.GONE.value
    message: Words = ""
    retry: bool = True
    retry_after_s: Seconds = 0.0

    def __repr__(self) -> str:
        return f"Bye(code={self.code!r}, message={self.message!r}, retry={self.retry})"


class Services(Message, frozen=True, kw_only=True):
    https: ReadSites = ()
    ports: ReadPorts = ()
    unmanaged: bool = False
    rules_rev: RulesRev | None = None  # that the list was made from; None: from no particular one


class SiteResult(Struct, frozen=True, kw_only=True, omit_defaults=True):
    domain: DomainName
    error: Fault | None = None


class PortResult(Struct, frozen=True, kw_only=True, omit_defaults=True):
    port: PortNumber
    error: Fault | None = None


class Accepted(Message, frozen=True, kw_only=True):
    """With `stale` nothing was put in force: the rules changed at the server, and the `config` before tells them."""

    https: Annotated[tuple[SiteResult, ...], Meta(max_length=LIST_COUNT_MAX)] = ()
    ports: Annotated[tuple[PortResult, ...], Meta(max_length=LIST_COUNT_MAX)] = ()
    stale: bool = False
    rules_rev: RulesRev | None = None


class Delayed(Message, frozen=True, kw_only=True):
    """A list of services cannot be stored now. It waits at the server, which answers it with `accepted` later."""

    error: Fault


class Config(Message, frozen=True, kw_only=True):
    config: TunConfig
    rules_rev: RulesRev | None = None


class Request(Message, frozen=True, kw_only=True):
    id: RequestId
    op: Annotated[str, Meta(max_length=64)]
    args: dict[str, Any] = {}


class Answer(Message, frozen=True, kw_only=True, omit_defaults=True):
    """Exactly one of `result` and `error`."""

    id: RequestId
    result: dict[str, Any] | None = None
    error: Fault | None = None

    def __post_init__(self) -> None:
        if (self.result is None) == (self.error is None):
            raise ValueError("an answer has either a result or an error")


class FailingService(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A site by its domain or a port by its number; `code` says what came of it last."""

    code: Code
    domain: DomainName = ""
    port: PortNumber = 0


class Health(Message, frozen=True, kw_only=True):
    """Every service whose upstream failed last; those not named answer, or were not asked yet."""

    failing: Annotated[tuple[FailingService, ...], Meta(max_length=LIST_COUNT_MAX)] = ()


class Address(Message, frozen=True, kw_only=True):
    """Another one of the host name's addresses is to be shown from now on: a certificate came or went."""

    url: Url


class Drain(Message, frozen=True, kw_only=True):
    retry_after_s: Seconds = 0.0


class Node(Message, frozen=True, kw_only=True):
    """A link between nodes: the one that dialled says and shows which node it is."""

    node: Uid
    incarnation: Incarnation
    worker: WorkerNumber  # of the one that dialled, which has this link
    workers: WorkerNumber  # how many it has
    signature: Secret  # base64, by its node key: docs/protocol.md, "Links between nodes"
    primary: bool = False  # this link carries presence


class Linked(Message, frozen=True, kw_only=True):
    """The answer to `node`."""

    node: Uid
    incarnation: Incarnation
    worker: WorkerNumber
    workers: WorkerNumber


class OnlineTunnel(Struct, frozen=True, kw_only=True, array_like=True):
    """A tunnel that has a session at the sender, and at which of its workers there are links of it (a mask)."""

    tunnel: Uid
    session: Annotated[str, Meta(max_length=32)]
    workers: Annotated[int, Meta(ge=0, lt=2**56)]


class Presence(Message, frozen=True, kw_only=True, omit_defaults=True):
    """`whole`: the whole set, of which more follows where `more` says so; else what has changed."""

    online: Annotated[tuple[OnlineTunnel, ...], Meta(max_length=PRESENCE_COUNT_MAX)] = ()
    offline: Annotated[tuple[Uid, ...], Meta(max_length=PRESENCE_COUNT_MAX)] = ()
    whole: bool = False
    more: bool = False


class PortArgs(Struct, frozen=True, kw_only=True):
    """Arguments of `tcp.release`, result of `tcp.allocate`."""

    port: Annotated[int, Meta(ge=1, le=65535)]


class TunnelEditArgs(Struct, frozen=True, kw_only=True):
    """Arguments of `tunnel.edit`."""

    name: ShortText


class TunnelInfo(Struct, frozen=True, kw_only=True):
    """Result of `tunnel.info`."""

    tunnel: Uid
    hostname: DomainName
    name: ShortText
    addresses: Annotated[tuple[ShortText, ...], Meta(max_length=64)] = ()
    urls: Urls = ()
    url: Url = ""
    domains: Annotated[tuple[DomainName, ...], Meta(max_length=LIST_COUNT_MAX)] = ()
    ports: Annotated[tuple[PortNumber, ...], Meta(max_length=LIST_COUNT_MAX)] = ()


MESSAGE_CLASSES: tuple[type[Message], ...] = (
    Hello, Welcome, Register, Registered, Login, Ready, Join, Joined, Lead, Leading, Bye,
    Services, Accepted, Delayed, Config, Request, Answer, Drain, Health, Address, Node, Linked, Presence,
)  # fmt: skip


class _Head(Struct):
    type: str


_HEAD: msgspec.json.Decoder[_Head] = msgspec.json.Decoder(_Head)
_DECODERS: dict[str, msgspec.json.Decoder[Message]] = {
    cls.__name__.lower(): msgspec.json.Decoder(cls) for cls in MESSAGE_CLASSES
}
_ENCODER = msgspec.json.Encoder()


def encode_message(message: Message) -> bytes:
    return _ENCODER.encode(message)


def decode_message(data: bytes) -> Message | None:
    """The message, or None when its type is unknown here (a newer peer's: ignored)."""
    try:
        decoder = _DECODERS.get(_HEAD.decode(data).type)
        return None if decoder is None else decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"a control message that cannot be read: {error}") from None


def choose_version(offered: tuple[int, ...]) -> int | None:
    """The highest version both ends speak, or None."""
    both = set(offered) & set(PROTOCOL_VERSIONS)
    return max(both) if both else None
