"""Control messages: what is decoded, ignored and refused."""

import contextlib
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spokes.errors import ProtocolError
from spokes.wire import messages as m
from spokes.wire.rules import FwRule, Port, PortMap, Site, TunConfig

UID = "0123456789abcdef" * 2
ALLOW_ALL = FwRule(sequence=1, action="allow", network="::/0")
TAKEN = m.Fault(code="SPK-TAKEN", message="taken")
SAMPLES = [
    m.Hello(versions=(1,), agent=m.Agent(version="0.1.0", os="linux", arch="amd64"), time=1_790_000_000),
    m.Welcome(version=1, server=m.ServerInfo(version="0.1.0", domain="tun.example.net"), time=1),
    m.Register(token="t" * 64, name="shop till 4"),
    m.Registered(tunnel=UID, hostname="calm-otter-1.tun.example.net", key="k" * 64),
    m.Login(key="k" * 64, mode="control"),
    m.Ready(
        tunnel=UID, hostname="h.example.net", name="n", generation=3, session="s", link_count_max=4,
        config=TunConfig(
            hostname="h.example.net",
            https=(Site(domain="shop.example.org", port=8080, firewall=(ALLOW_ALL,)),),
            ports=(Port(port=22001),),
            portmaps=(PortMap(listen_port=5432, dst_port=22002, destination="", transport="tcp", label="db"),),
        ),
    ),
    m.Join(session="s"),
    m.Joined(),
    m.Lead(),
    m.Leading(),
    m.Bye(code="SPK-TOKEN", reason=m.Reason.PROTOCOL, message="unknown key", retry=False, retry_after_s=1.5),
    m.Services(https=(Site(domain="a.example"),), ports=(Port(port=22001, destination="127.0.0.1", dst_port=22),)),
    m.Accepted(https=(m.SiteResult(domain="a", error=TAKEN),), ports=(m.PortResult(port=1),)),
    m.Delayed(error=m.Fault(code="SPK-STORE", message="the disk is full", retry=True)),
    m.Config(config=TunConfig()),
    m.Request(id=7, op="tcp.release", args={"port": 22001}),
    m.Answer(id=7, result={}),
    m.Answer(id=8, error=m.Fault(code="SPK-NOT-FOUND")),
    m.Health(failing=(m.FailingService(domain="a.example", code="SPK-UPSTREAM-CUT"),)),
    m.Drain(retry_after_s=2.0),
    m.Address(url="https://h.example.net:8443"),
    m.Node(node=UID, incarnation="0" * 16, worker=1, workers=2, signature="c2ln", primary=True),
    m.Linked(node=UID, incarnation="f" * 16, worker=0, workers=55),
    m.Presence(online=(m.OnlineTunnel(tunnel=UID, session="s", workers=5),), offline=(UID,), whole=True, more=True),
]  # fmt: skip


@pytest.mark.parametrize("message", SAMPLES, ids=lambda message: type(message).__name__)
def test_message_encoded_decodes_to_itself(message):
    assert m.decode_message(m.encode_message(message)) == message


def test_samples_cover_every_message_class():
    assert {type(message) for message in SAMPLES} == set(m.MESSAGE_CLASSES)


def test_decode_unknown_members_are_ignored():
    raw = json.loads(m.encode_message(SAMPLES[0]))
    raw["later"] = {"deep": [1, 2]}
    raw["agent"]["colour"] = "blue"
    assert m.decode_message(json.dumps(raw).encode()) == SAMPLES[0]


def test_decode_unknown_type_is_none():
    assert m.decode_message(b'{"type": "weather", "sun": true}') is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00" * 40,
        b"null",
        b"[]",
        b"{}",
        b'{"type": 4}',
        b'{"type": "login"}',
        b'{"type": "login", "key": ""}',
        b'{"type": "login", "key": "k", "mode": "root"}',
        b'{"type": "login", "key": "' + b"k" * 256 + b'"}',
        b'{"type": "login", "key": "\xff\xfe"}',
        b'{"type": "hello", "versions": [], "agent": {}, "time": 1}',
        b'{"type": "hello", "versions": ["1"], "agent": {}, "time": 1}',
        b'{"type": "hello", "versions": [1], "agent": {}, "time": -1}',
        b'{"type": "hello", "versions": [1], "agent": {}, "time": 1e400}',
        b'{"type": "registered", "tunnel": "0123456789ABCDEF0123456789ABCDEF", "hostname": "h", "key": "k"}',
        b'{"type": "registered", "tunnel": "0123456789abcdef0123456789abcdef\\n", "hostname": "h", "key": "k"}',
        b'{"type": "answer", "id": 1}',
        b'{"type": "answer", "id": 1, "result": {}, "error": {"code": "SPK-X"}}',
        b'{"type": "bye", "code": "oops"}',
        b'{"type": "services", "https": [{"domain": "a", "port": 65536}]}',
        b'{"type": "services", "https": [{"domain": "a", "port": true}]}',
        b'{"type": "joined"} trailing',
        b'{"type": "request", "id": 1, "op": "x", "args": ' + b'{"a":' * 100_000,
    ],
)
def test_decode_malformed_is_a_protocol_error(data):
    with pytest.raises(ProtocolError):
        m.decode_message(data)


@given(st.binary(max_size=200))
def test_decode_garbage_never_raises_anything_else(data):
    with contextlib.suppress(ProtocolError):
        m.decode_message(data)


@given(st.sampled_from(SAMPLES), st.integers(0, 1000), st.integers(0, 255))
def test_decode_one_byte_changed_never_raises_anything_else(message, at, value):
    data = bytearray(m.encode_message(message))
    data[at % len(data)] = value
    with contextlib.suppress(ProtocolError):
        m.decode_message(bytes(data))


def test_message_repr_holds_no_secret():
    for message in SAMPLES:
        assert "kkkk" not in repr(message)
        assert "tttt" not in repr(message)


def test_choose_version_takes_the_highest_common_or_none():
    assert m.choose_version((1, 2, 9)) == 1
    assert m.choose_version((2, 9)) is None


def test_bye_time_may_be_an_integer():
    message = m.decode_message(b'{"type": "bye", "code": "SPK-LIMIT", "retry_after_s": 5}')
    assert isinstance(message, m.Bye)
    assert message.retry_after_s == 5.0


def test_fault_long_message_is_cut_to_its_bound():
    fault = m.Fault.of(ProtocolError("x" * 5000))
    assert msgspec.convert({"code": fault.code, "message": fault.message}, m.Fault) == fault
