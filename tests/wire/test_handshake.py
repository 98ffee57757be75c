"""The handshake: both tables against each other, and everything that is not in them."""

import itertools

import pytest

from spokes.errors import ProtocolError
from spokes.wire import messages as m
from spokes.wire.handshake import (
    CLIENT_TRANSITIONS,
    SERVER_TRANSITIONS,
    ClientHandshake,
    Handshake,
    ServerHandshake,
    State,
    Way,
)
from spokes.wire.rules import TunConfig

UID = "0123456789abcdef" * 2
HELLO = m.Hello(versions=(1,), agent=m.Agent(), time=1)
WELCOME = m.Welcome(version=1, server=m.ServerInfo(), time=1)
READY = m.Ready(tunnel=UID, hostname="h", name="", generation=1, session="s", config=TunConfig(), link_count_max=4)
NODE = m.Node(node=UID, incarnation="0" * 16, worker=0, workers=1, signature="c2ln")
BYE = m.Bye(code="SPK-TOKEN")


def pass_on(sender: Handshake, receiver: Handshake, message: m.Message) -> None:
    for part in sender.send(message):
        received = receiver.receive(part.payload, part.flags)
    assert received == message


CONVERSATIONS = {
    "register": ([m.Register(token="t", name="n")], [m.Registered(tunnel=UID, hostname="h", key="k")], State.CLOSED),
    "serve": ([m.Login(key="k")], [READY], State.SERVING),
    "control": ([m.Login(key="k", mode="control")], [READY], State.CONTROLLING),
    "join": ([m.Join(session="s")], [m.Joined()], State.JOINED),
    "lead": ([m.Join(session="s"), m.Lead()], [m.Joined(), m.Leading()], State.SERVING),
    "node": ([NODE, m.Presence()], [m.Linked(node=UID, incarnation="1" * 16, worker=0, workers=1), m.Presence()],
             State.NODE),
    "refused": ([m.Login(key="k")], [BYE], State.CLOSED),
}


@pytest.mark.parametrize(("name", "early"), [
    (name, early) for name in CONVERSATIONS for early in (False, True)
    if (name, early) != ("node", True)              # what a node shows rests on what welcome said
])
def test_handshake_conversation_ends_alike_at_both_ends(name, early):
    asked, answered, end = CONVERSATIONS[name]
    client, server = ClientHandshake(), ServerHandshake()
    hello = client.send(HELLO)
    sent_early = client.send(asked[0]) if early else []
    for part in hello:
        server.receive(part.payload, part.flags)
    pass_on(server, client, WELCOME)
    for part in sent_early or client.send(asked[0]):
        server.receive(part.payload, part.flags)
    pass_on(server, client, answered[0])
    for question, answer in zip(asked[1:], answered[1:], strict=True):
        pass_on(client, server, question)
        pass_on(server, client, answer)
    assert client.state is server.state is end


def test_handshake_serving_session_exchanges_what_the_protocol_lists():
    client, server = ClientHandshake(), ServerHandshake()
    pass_on(client, server, HELLO)
    pass_on(server, client, WELCOME)
    pass_on(client, server, m.Login(key="k"))
    pass_on(server, client, READY)
    for message in (m.Services(), m.Request(id=1, op="tunnel.info")):
        pass_on(client, server, message)
    delayed = m.Delayed(error=m.Fault(code="SPK-STORE"))
    address = m.Address(url="https://h.example.net")
    for message in (m.Accepted(), delayed, m.Config(config=TunConfig()), m.Answer(id=1, result={}), m.Drain(), address):
        pass_on(server, client, message)
    assert client.state is server.state is State.SERVING


def test_tables_mirror_each_other():
    """What one end may send in a state that both can be in, the other may receive."""
    early = {State.REGISTERING_EARLY, State.LOGGING_IN_EARLY, State.JOINING_EARLY}

    def mirrored(table):
        other = {Way.SEND: Way.RECEIVE, Way.RECEIVE: Way.SEND}
        return {(state, other[way], kind): to for (state, way, kind), to in table.items() if not {state, to} & early}

    assert mirrored(CLIENT_TRANSITIONS) == {key: to for key, to in SERVER_TRANSITIONS.items() if key[0] not in early}


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        pair
        for pair in itertools.product(State, m.MESSAGE_CLASSES)
        if (pair[0], Way.RECEIVE, pair[1]) not in SERVER_TRANSITIONS
    ],
)
def test_server_message_out_of_turn_is_refused_and_state_stays(state, kind):
    from tests.wire.test_messages import SAMPLES

    server = ServerHandshake()
    server.state = state
    data = m.encode_message(next(sample for sample in SAMPLES if type(sample) is kind))
    with pytest.raises(ProtocolError):
        server.receive(data, 0)
    assert server.state is state


def test_server_unknown_message_is_ignored_in_every_state():
    for state in State:
        server = ServerHandshake()
        server.state = state
        assert server.receive(b'{"type": "weather"}', 0) is None
        assert server.state is state


def test_joined_link_accepts_no_requests():
    server = ServerHandshake()
    server.state = State.JOINED
    with pytest.raises(ProtocolError):
        server.receive(m.encode_message(m.Request(id=1, op="tunnel.info")), 0)
