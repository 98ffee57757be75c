import asyncio

import pytest

from spokes._fastpath.engine import LinkDown
from spokes.client.endpoint import Endpoint
from spokes.client.links import Links
from spokes.client.session import join, log_in, register
from spokes.errors import ProtocolError, RemoteError, ServerKeyError, UnreachableError
from spokes.resolver import Answer
from spokes.wire.messages import Bye, Message
from tests.client.fake_engine import HOSTNAME, UID
from tests.support.eventually import eventually

ENDPOINT = Endpoint(host="tun.example", port=8443, pin_sha256=b"p" * 32)


async def resolve(host):
    if host == "nowhere.example":
        raise OSError("no such name")
    return Answer(("2001:db8::1", "2001:db8::2", "192.0.2.1"))


@pytest.fixture
async def links(engine):
    links = Links(engine, resolve=resolve)
    links.start()
    yield links
    links.stop()


async def test_dial_first_address_gets_pin_and_name(engine, links):
    link = await links.dial(ENDPOINT)
    assert engine.dialled == [("2001:db8::1", 8443)]
    assert engine.pins == [b"p" * 32]
    assert link.ended is None


async def test_dial_dead_addresses_are_passed_over_by_family(engine, links):
    engine.refused = {
        "2001:db8::1": (LinkDown.SYSTEM, b"Network is unreachable"),
        "192.0.2.1": (LinkDown.SYSTEM, b"Connection refused"),
    }
    await links.dial(ENDPOINT)
    assert [address for address, _ in engine.dialled] == ["2001:db8::1", "192.0.2.1", "2001:db8::2"]


async def test_dial_no_address_answers_says_the_reason_once(engine, links):
    for address in (await resolve("tun.example")).addresses:
        engine.refused[address] = (LinkDown.SYSTEM, b"Connection refused")
    with pytest.raises(UnreachableError, match=r"tun\.example:8443: Connection refused"):
        await links.dial(ENDPOINT)


async def test_dial_of_a_port_without_tls_says_which_port_is_meant(engine, links):
    for address in (await resolve("tun.example")).addresses:
        engine.refused[address] = (LinkDown.TLS, b"wrong version number")
    with pytest.raises(UnreachableError) as caught:
        await links.dial(ENDPOINT)
    assert "HTTPS" in caught.value.hint


async def test_dial_addresses_fail_differently_says_every_reason(engine, links):
    engine.refused = {
        "127.0.0.1": (LinkDown.TLS, b"wrong version number"),
        "::1": (LinkDown.SYSTEM, b"Connection refused"),
    }
    with pytest.raises(UnreachableError) as caught:
        await links.dial(Endpoint(host="tun.localhost", port=443))
    assert "wrong version number) (127.0.0.1), Connection refused (::1)" in str(caught.value)


async def test_dial_untrusted_certificate_says_how_to_trust_and_is_not_tried_elsewhere(engine, links):
    engine.refused = {"127.0.0.1": (LinkDown.TLS, b"certificate verify failed (self-signed certificate)")}
    with pytest.raises(ServerKeyError) as caught:
        await links.dial(Endpoint(host="tun.localhost", port=443))
    assert "self-signed" in str(caught.value)
    assert "--server-key" in caught.value.hint
    assert [address for address, _ in engine.dialled] == ["127.0.0.1"]


async def test_dial_wrong_key_is_not_tried_elsewhere(engine, links):
    engine.refused = {"2001:db8::1": (LinkDown.PIN, b"found sha256:beef, want sha256:cafe")}
    with pytest.raises(ServerKeyError, match="found sha256:beef, want sha256:cafe"):
        await links.dial(ENDPOINT)
    assert len(engine.dialled) == 1


async def test_dial_unknown_name_is_unreachable(links):
    with pytest.raises(UnreachableError, match=r"cannot resolve nowhere\.example"):
        await links.dial(Endpoint(host="nowhere.example", port=443))


async def test_dial_literal_address_needs_no_look_up(engine):
    async def never(host):
        raise AssertionError(host)

    links = Links(engine, resolve=never)
    links.start()
    await links.dial(Endpoint(host="127.0.0.1", port=1))
    links.stop()


async def test_dial_cancelled_aborts_the_link(engine, links):
    engine.connect_link = lambda *args, **kwargs: 99  # neither up nor down, ever
    aborted = []
    engine.abort_link = aborted.append
    dialling = asyncio.create_task(links.dial(Endpoint(host="127.0.0.1", port=1)))
    await eventually(lambda: links._links)
    dialling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await dialling
    assert aborted == [99]


async def test_register_new_tunnel_and_link_is_closed(engine, links):
    registered = await register(links, ENDPOINT, token="t" * 64, name="till 4")
    assert (registered.tunnel, registered.hostname, registered.key) == (UID, HOSTNAME, "k" * 64)
    assert engine.server.registrations[0].name == "till 4"
    assert engine.links == []


async def test_register_wrong_token_keeps_the_servers_code_and_words(engine, links):
    engine.server.bye = Bye(code="SPK-TOKEN", message="unknown token; ask for one", retry=False)
    with pytest.raises(RemoteError) as caught:
        await register(links, ENDPOINT, token="t", name="")
    assert caught.value.code == "SPK-TOKEN"
    assert not caught.value.retryable
    assert caught.value.line() == "unknown token; ask for one [SPK-TOKEN]"


async def test_log_in_link_cut_meanwhile_is_unreachable(engine, links):
    engine.server.silent = True
    logging_in = asyncio.create_task(log_in(links, ENDPOINT, key="k", mode="serve"))
    await eventually(lambda: engine.links)
    engine.cut(engine.links[0], LinkDown.DEAD)
    with pytest.raises(UnreachableError, match="25 s"):
        await logging_in


async def test_log_in_control_mode_reaches_the_server(engine, links):
    await log_in(links, ENDPOINT, key="k", mode="control")
    assert engine.server.logins == ["control"]


async def test_join_additional_link_of_a_session(engine, links):
    link = await join(links, ENDPOINT, "s" * 32)
    assert engine.server.joined == [link.id]


@pytest.mark.parametrize("skew_s", [-400, 400])
async def test_log_in_clock_far_off_is_said_once_and_not_fatal(engine, links, caplog, skew_s):
    engine.server.clock_skew_s = skew_s
    await log_in(links, ENDPOINT, key="k", mode="serve")
    said = [record for record in caplog.records if "clock" in record.message]
    assert len(said) == 1
    assert abs(said[0].ahead_s + skew_s) <= 2


async def test_receive_garbage_ends_the_link(engine, links):
    link = await links.dial(ENDPOINT)
    link.take_control(b"\xff{", 0)
    with pytest.raises(ProtocolError):
        await link.receive()
    await eventually(lambda: engine.links == [])


async def test_receive_garbage_the_server_is_told_why(engine, links):
    link, _ = await log_in(links, ENDPOINT, key="k", mode="serve")
    link.take_control(b"\xff{", 0)
    await eventually(lambda: engine.links == [])
    assert [bye.code for bye in engine.server.byes] == ["SPK-PROTOCOL"]


def test_messages_are_never_printed_with_their_members():
    for cls in Message.__subclasses__():
        assert cls.__repr__ in (Message.__repr__, Bye.__repr__)
