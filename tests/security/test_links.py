"""Hostile links: strangers, and tunnels that want what belongs to others."""

from __future__ import annotations

import json

import pytest

from spokes.server.sessions.admission import FAILURES_AT_ONCE
from spokes.server.sessions.sessions import CONTROL_LINK_COUNT_MAX
from tests.support.frames import FrameType, Service, credit, frame, open_frame
from tests.support.hostile_links import HELLO, HostileLink
from tests.support.processes import DOMAIN, wait_until

pytestmark = pytest.mark.e2e

ATTACKER = "127.0.0.66"


@pytest.mark.parametrize(
    "spelling",
    ["{}", "{}.", "www.{}", "a.b.{}", "\N{FULLWIDTH LATIN SMALL LETTER A}.{}"],
)
@pytest.mark.parametrize("upper", [False, True])
def test_link_claim_of_another_tunnels_name_is_refused(server, tenant, key, spelling, upper):
    name = spelling.format(tenant.hostname)
    site = {"domain": name.upper() if upper else name, "destination": "127.0.0.1", "port": 9}
    link = HostileLink(server)
    link.log_in(key)
    link.say({"type": "services", "https": [site]})
    assert link.outcome("accepted")["https"][0]["error"]["code"] == "SPK-TAKEN"
    assert server.serves(tenant.hostname)
    link.close()


@pytest.mark.parametrize(
    "name",
    [
        DOMAIN, DOMAIN.upper() + ".", "test", f"admin.{DOMAIN}", f"API.{DOMAIN}.", f"x.cluster.{DOMAIN}", "localhost",
        f"\N{FULLWIDTH LATIN SMALL LETTER A}dmin.{DOMAIN}", f"adm\u00adin.{DOMAIN}",
        f"admin\N{IDEOGRAPHIC FULL STOP}{DOMAIN}", f"*.{DOMAIN}", "127.0.0.1", "[::1]", f"x\n.{DOMAIN}", "\0",
    ],
)  # fmt: skip
def test_link_claim_of_a_reserved_or_malformed_name_is_refused(server, key, name):
    link = HostileLink(server)
    link.log_in(key)
    link.say({"type": "services", "https": [{"domain": name, "destination": "127.0.0.1", "port": 9}]})
    code = "SPK-WILDCARD" if name.startswith("*") else "SPK-NAME"
    assert link.outcome("accepted")["https"][0]["error"]["code"] == code
    link.close()


def test_link_another_tunnels_port_is_neither_forwarded_nor_released(server, tenant, key):
    port = int(tenant.spoke("tunnel", "tcp", "allocate").stdout.split()[-1])
    link = HostileLink(server)
    link.log_in(key)
    link.say({"type": "services", "ports": [{"port": port, "destination": "127.0.0.1", "dstPort": 9}]})
    assert link.outcome("accepted")["ports"][0]["error"]["code"] == "SPK-NOT-FOUND"
    link.say({"type": "request", "id": 1, "op": "tcp.release", "args": {"port": port}})
    assert link.outcome("answer")["error"]["code"] == "SPK-NOT-FOUND"
    assert str(port) in tenant.spoke("tunnel", "tcp", "ls").stdout
    link.close()


@pytest.mark.parametrize(
    "words",
    [
        b'{"type":"services","https":' + b"[" * 200_000,
        b'{"type":"request","id":1,"op":"x","args":' + b'{"a":' * 50_000 + b"1" + b"}" * 50_001,
        b'{"type":"request","id":NaN,"op":"x"}',
        b'{"type":"bye","type":"request","id":1,"op":"tunnel.info"}',
        b'{"type":"request","id":1,"op":"\\ud800"}',
        b'{"type":"\xff"}',
        b"[]",
        json.dumps({"type": "services", "https": [{"domain": f"x{n}.example"} for n in range(4097)]}).encode(),
        json.dumps({"type": "login", "key": "0" * 64}).encode(),
        b'{"type":"joined"}',
    ],
    ids=["deep list", "deep object", "NaN", "type twice", "lone surrogate", "no UTF-8", "list", "long list",
         "second login", "a server's word"],
)  # fmt: skip
def test_link_message_that_breaks_the_protocol_ends_that_session_with_a_reason(server, tenant, key, words):
    link = HostileLink(server)
    link.log_in(key)
    link.say(words)
    assert link.hear()["code"] == "SPK-PROTOCOL"
    assert server.serves(tenant.hostname)


@pytest.mark.parametrize(
    "frames",
    [
        b"".join(open_frame(2 * number + 1) for number in range(100_000)),
        open_frame(2),
        open_frame(3) + open_frame(3),
        frame(FrameType.OPEN, 1, b"short"),
        frame(FrameType.DATA, 4, b"unopened"),
        credit(4, 99),
        frame(FrameType.PING, 0, b"12345678") * 1000,
        frame(FrameType.CONTROL, 0, b'{"type":"x"}') * 5000,
        frame(FrameType.DATAGRAM, 0, b"x"),
    ],
    ids=["OPEN flood", "even id", "id twice", "short OPEN", "DATA unopened", "CREDIT unopened", "PING flood",
         "CONTROL flood", "DATAGRAM on the link"],
)  # fmt: skip
def test_link_frames_that_break_the_protocol_end_that_session_and_leave_nothing(server, tenant, key, frames):
    before = server.log().count("why=protocol")
    link = HostileLink(server)
    link.log_in(key)
    link.try_send(frames)
    heard = link.until_end()
    if len(frames) < 1000:  # one who floods may have left no room for a goodbye
        assert json.loads(heard[-1].payload)["code"] == "SPK-PROTOCOL"
    assert server.serves(tenant.hostname)
    wait_until(lambda: server.log().count("why=protocol") > before)
    wait_until(lambda: server.status()["engine"]["links_open"] == 1)
    # A goodbye may wait for two seconds.
    wait_until(lambda: server.status()["engine"]["buffer_bytes"] == 0, within_s=5)
    assert server.status()["engine"]["streams_open"] == 0


def test_link_client_opens_no_stream(server, key):
    link = HostileLink(server)
    link.log_in(key)
    link.send(*(open_frame(1 + 2 * service, service) for service in Service))
    assert [link.read(FrameType.RESET).stream for _ in Service] == [1 + 2 * service for service in Service]
    link.close()


@pytest.mark.parametrize("session", ["x", ".", "0.0", "é.é", "{id}.", "{id}." + "0" * 64])
def test_link_join_with_a_wrong_secret_is_refused(server, key, session):
    first = HostileLink(server)
    ready = first.log_in(key)
    link = HostileLink(server)
    link.say(HELLO, {"type": "join", "session": session.format(id=ready["session"].partition(".")[0])})
    assert link.outcome("joined")["code"] == "SPK-SESSION"
    first.close()


def test_link_flood_of_wrong_tokens_keeps_only_its_own_address_out(server, key):
    codes = []
    for number in range(2 * FAILURES_AT_ONCE + 10):
        stranger = HostileLink(server, source=ATTACKER)
        codes.append(stranger.log_in(f"{number:064x}")["code"])
        stranger.close()
    assert codes[:FAILURES_AT_ONCE] == ["SPK-TOKEN"] * FAILURES_AT_ONCE
    assert codes[-1] == "SPK-BUSY"
    link = HostileLink(server)
    assert link.log_in(key)["type"] == "ready"
    link.close()


def test_link_one_tunnel_holds_so_many_control_links(server, tenant, key):
    links = [HostileLink(server) for _ in range(CONTROL_LINK_COUNT_MAX + 1)]
    answers = [link.log_in(key, "control") for link in links]
    assert [answer["type"] for answer in answers[:-1]] == ["ready"] * CONTROL_LINK_COUNT_MAX
    assert answers[-1]["code"] == "SPK-LIMIT"
    for link in links:
        link.close()
    tenant.spoke("tunnel", "tcp", "ls")


def test_link_names_and_agents_forge_no_log_lines(server, key):
    link = HostileLink(server)
    evil = "1\n2026-01-01T00:00:00.000Z INFO forged\x1b[2J"
    link.say({**HELLO, "agent": {"version": evil, "os": evil, "arch": evil}}, {"type": "login", "key": key})
    assert link.outcome("ready")["type"] == "ready"
    link.say({"type": "services", "https": [{"domain": evil}]}, {"type": "request", "id": 1, "op": evil})
    link.outcome("answer")
    log = server.log()
    assert "\x1b" not in log and "\n2026-01-01" not in log
    assert key not in log
    link.close()
