"""The handshake: which control message may come or go when, as one transition table for each end of a link.

Owns: the state of one link's conversation and its half-received message. No I/O and no clock: the caller feeds CONTROL
payloads in, sends the parts it gets out, and holds the deadline of HELLO_DEADLINE_S.
Fails: ProtocolError; the link is then to be closed (after a `bye`, where one can still be sent).
Source: docs/protocol.md, "Handshake".
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType

from spokes.errors import ProtocolError
from spokes.wire.messages import (
    Accepted,
    Address,
    Answer,
    Bye,
    Config,
    Delayed,
    Drain,
    Health,
    Hello,
    Join,
    Joined,
    Lead,
    Leading,
    Linked,
    Login,
    Message,
    Node,
    Presence,
    Ready,
    Register,
    Registered,
    Request,
    Services,
    Welcome,
    decode_message,
    encode_message,
)
from spokes.wire.parts import Part, PartJoiner, split_message

HELLO_DEADLINE_S = 10.0


class State(Enum):
    NEW = "new"  # nothing said yet
    HELLO = "hello"  # hello went, welcome did not
    REGISTERING_EARLY = "registering-early"  # register followed hello at once; welcome is still to come
    LOGGING_IN_EARLY = "logging-in-early"
    JOINING_EARLY = "joining-early"
    GREETED = "greeted"  # both know the version
    REGISTERING = "registering"
    LOGGING_IN = "logging-in"  # mode "serve"
    LOGGING_IN_CONTROL = "logging-in-control"  # mode "control"
    JOINING = "joining"
    SERVING = "serving"  # the primary link of a session
    CONTROLLING = "controlling"  # requests only
    JOINED = "joined"  # an additional link of a session
    TAKING_LEAD = "taking-lead"  # of a joined link: lead went, leading did not
    LINKING = "linking"  # a node said which one it is
    NODE = "node"  # a link between nodes
    CLOSED = "closed"  # a bye was said, or registration is done


class Way(Enum):
    SEND = "send"
    RECEIVE = "receive"


Transitions = Mapping[tuple[State, Way, type[Message]], State]

_S, _W = State, Way

DRAINABLE = (_S.SERVING, _S.CONTROLLING, _S.JOINED, _S.TAKING_LEAD)  # where a server may announce its end
LEAD_DEADLINE_S = 60.0  # a client that lost a link hears of it within 25 s, and needs no more than one round trip then

# `login` decides by its mode which of two states follows; see Handshake._move.
SERVER_TRANSITIONS: Transitions = MappingProxyType({
    (_S.NEW, _W.RECEIVE, Hello): _S.HELLO,
    (_S.HELLO, _W.SEND, Welcome): _S.GREETED,
    (_S.GREETED, _W.RECEIVE, Register): _S.REGISTERING,
    (_S.GREETED, _W.RECEIVE, Login): _S.LOGGING_IN,
    (_S.GREETED, _W.RECEIVE, Join): _S.JOINING,
    (_S.REGISTERING, _W.SEND, Registered): _S.CLOSED,
    (_S.LOGGING_IN, _W.SEND, Ready): _S.SERVING,
    (_S.LOGGING_IN_CONTROL, _W.SEND, Ready): _S.CONTROLLING,
    (_S.JOINING, _W.SEND, Joined): _S.JOINED,
    (_S.JOINED, _W.RECEIVE, Lead): _S.TAKING_LEAD,
    (_S.TAKING_LEAD, _W.SEND, Leading): _S.SERVING,
    (_S.GREETED, _W.RECEIVE, Node): _S.LINKING,
    (_S.LINKING, _W.SEND, Linked): _S.NODE,
    **{(_S.NODE, way, Presence): _S.NODE for way in Way},
    (_S.SERVING, _W.RECEIVE, Services): _S.SERVING,
    (_S.SERVING, _W.RECEIVE, Health): _S.SERVING,
    (_S.SERVING, _W.SEND, Accepted): _S.SERVING,
    (_S.SERVING, _W.SEND, Delayed): _S.SERVING,
    (_S.SERVING, _W.SEND, Config): _S.SERVING,
    (_S.SERVING, _W.SEND, Address): _S.SERVING,
    (_S.SERVING, _W.RECEIVE, Request): _S.SERVING,
    (_S.SERVING, _W.SEND, Answer): _S.SERVING,
    (_S.CONTROLLING, _W.RECEIVE, Request): _S.CONTROLLING,
    (_S.CONTROLLING, _W.SEND, Answer): _S.CONTROLLING,
    **{(state, _W.SEND, Drain): state for state in DRAINABLE},
    **{(state, way, Bye): _S.CLOSED for state in State if state is not _S.CLOSED for way in Way},
})  # fmt: skip

CLIENT_TRANSITIONS: Transitions = MappingProxyType({
    (_S.NEW, _W.SEND, Hello): _S.HELLO,
    (_S.HELLO, _W.SEND, Register): _S.REGISTERING_EARLY,
    (_S.HELLO, _W.SEND, Login): _S.LOGGING_IN_EARLY,
    (_S.HELLO, _W.SEND, Join): _S.JOINING_EARLY,
    (_S.HELLO, _W.RECEIVE, Welcome): _S.GREETED,
    (_S.REGISTERING_EARLY, _W.RECEIVE, Welcome): _S.REGISTERING,
    (_S.LOGGING_IN_EARLY, _W.RECEIVE, Welcome): _S.LOGGING_IN,
    (_S.JOINING_EARLY, _W.RECEIVE, Welcome): _S.JOINING,
    (_S.GREETED, _W.SEND, Register): _S.REGISTERING,
    (_S.GREETED, _W.SEND, Login): _S.LOGGING_IN,
    (_S.GREETED, _W.SEND, Join): _S.JOINING,
    (_S.REGISTERING, _W.RECEIVE, Registered): _S.CLOSED,
    (_S.LOGGING_IN, _W.RECEIVE, Ready): _S.SERVING,
    (_S.LOGGING_IN_CONTROL, _W.RECEIVE, Ready): _S.CONTROLLING,
    (_S.JOINING, _W.RECEIVE, Joined): _S.JOINED,
    (_S.JOINED, _W.SEND, Lead): _S.TAKING_LEAD,
    (_S.TAKING_LEAD, _W.RECEIVE, Leading): _S.SERVING,
    (_S.GREETED, _W.SEND, Node): _S.LINKING,
    (_S.LINKING, _W.RECEIVE, Linked): _S.NODE,
    **{(_S.NODE, way, Presence): _S.NODE for way in Way},
    (_S.SERVING, _W.SEND, Services): _S.SERVING,
    (_S.SERVING, _W.SEND, Health): _S.SERVING,
    (_S.SERVING, _W.RECEIVE, Accepted): _S.SERVING,
    (_S.SERVING, _W.RECEIVE, Delayed): _S.SERVING,
    (_S.SERVING, _W.RECEIVE, Config): _S.SERVING,
    (_S.SERVING, _W.RECEIVE, Address): _S.SERVING,
    (_S.SERVING, _W.SEND, Request): _S.SERVING,
    (_S.SERVING, _W.RECEIVE, Answer): _S.SERVING,
    (_S.CONTROLLING, _W.SEND, Request): _S.CONTROLLING,
    (_S.CONTROLLING, _W.RECEIVE, Answer): _S.CONTROLLING,
    **{(state, _W.RECEIVE, Drain): state for state in DRAINABLE},
    **{(state, way, Bye): _S.CLOSED for state in State if state is not _S.CLOSED for way in Way},
})  # fmt: skip


class Handshake:
    """One end of one link's conversation."""

    __slots__ = ("_control", "_joiner", "_transitions", "state")

    def __init__(self, transitions: Transitions) -> None:
        self._transitions = transitions
        self._joiner = PartJoiner()
        self._control = False
        self.state = State.NEW

    def send(self, message: Message) -> list[Part]:
        """The parts to send, in order; the state moves as if they were sent."""
        parts = split_message(encode_message(message))
        self._move(Way.SEND, message)
        return parts

    def receive(self, payload: bytes, flags: int) -> Message | None:
        """The message that this part completed; None while more parts are due, or when its type is unknown here."""
        data = self._joiner.feed(payload, flags)
        message = None if data is None else decode_message(data)
        if message is not None:
            self._move(Way.RECEIVE, message)
        return message

    def _move(self, way: Way, message: Message) -> None:
        to = self._transitions.get((self.state, way, type(message)))
        if to is None:
            verb = "sent" if way is Way.SEND else "received"
            raise ProtocolError(f"{type(message).__name__.lower()} {verb} in state {self.state.value}")
        if isinstance(message, Login):
            self._control = message.mode == "control"
        self.state = State.LOGGING_IN_CONTROL if to is State.LOGGING_IN and self._control else to


class ServerHandshake(Handshake):
    """The end that accepted the link."""

    def __init__(self) -> None:
        super().__init__(SERVER_TRANSITIONS)


class ClientHandshake(Handshake):
    """The end that opened the link; `register`, `login` or `join` may be sent behind `hello` at once."""

    def __init__(self) -> None:
        super().__init__(CLIENT_TRANSITIONS)
