"""E-mail against a real SMTP server."""

import asyncio
import contextlib
import dataclasses

import pytest

from spokes.errors import ConfigError
from spokes.resolver import Answer, Resolver
from spokes.server.notify import mail
from spokes.server.notify.mail import LINE_COUNT_MAX, Mailer, SmtpServer
from spokes.server.notify.notifications import make_mailer
from spokes.server.process.app import Server
from spokes.store import Alert, Severity
from tests.support.eventually import eventually
from tests.support.fake_engine import FakeEngine
from tests.support.smtp_receiver import smtp_receiver


def alert(text="3% of the disk are free", **changes) -> Alert:
    facts = {
        "uid": "a" * 32, "kind": "disk", "subject": "/data", "severity": Severity.WARNING, "text": text, "raised": 1.0
    }  # fmt: skip
    return Alert(**(facts | changes))


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(mail, "GATHER_S", 0.01)


@contextlib.asynccontextmanager
async def mailer(receiver, *, host="127.0.0.1", user="", password="", retry_s=0.01, resolve=None):
    url = f"smtp://{user + '@' if user else ''}{host}:{receiver.port}"
    server = SmtpServer(url, password, resolve or Resolver().addresses, greeted_as="tun.example.net")
    made = Mailer(
        server, sender="spokes@example.net", recipients=("ops@example.net", "boss@example.net"),
        domain="tun.example.net", retry_s=retry_s,
    )  # fmt: skip
    task = asyncio.create_task(made.run())
    try:
        yield made
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_mail_alert_arrives_at_everybody():
    async with smtp_receiver() as receiver:
        async with mailer(receiver) as made:
            made.put(alert())
            await eventually(lambda: receiver.messages)
        (message,) = receiver.messages
    assert message["Subject"] == "[tun.example.net] warning: 3% of the disk are free"
    assert (message["From"], message["To"]) == ("spokes@example.net", "ops@example.net, boss@example.net")
    assert message["Auto-Submitted"] == "auto-generated"
    assert "warning: 3% of the disk are free" in message.get_content()
    assert receiver.recipients == [["ops@example.net", "boss@example.net"]]


async def test_mail_alerts_that_come_together_go_together():
    async with smtp_receiver() as receiver:
        async with mailer(receiver) as made:
            made.put(alert("one"))
            made.put(alert("two", resolved=2.0))
            await eventually(lambda: receiver.messages)
        assert receiver.messages[0]["Subject"] == "[tun.example.net] 2 alerts"
        assert receiver.messages[0].get_content().splitlines() == ["warning: one", "resolved: two"]


async def test_mail_hostile_text_begins_no_header_and_no_line():
    async with smtp_receiver() as receiver:
        async with mailer(receiver) as made:
            made.put(alert("x\r\nBcc: thief@example.org\r\n\r\nsecond body\n.\nQUIT"))
            await eventually(lambda: receiver.messages)
        (message,) = receiver.messages
    assert message["Bcc"] is None
    assert receiver.recipients == [["ops@example.net", "boss@example.net"]]
    assert len(message.get_content().splitlines()) == 1


async def test_mail_refused_for_now_is_sent_again():
    async with smtp_receiver() as receiver:
        receiver.refusals = 2
        async with mailer(receiver) as made:
            made.put(alert())
            await eventually(lambda: receiver.messages)


async def test_mail_server_away_is_no_fault_of_ours(caplog):
    async with smtp_receiver() as receiver:
        pass
    async with mailer(receiver) as made:
        made.put(alert())
        await eventually(lambda: sum(one.msg == "e-mail not sent" for one in caplog.records) == mail.TRY_COUNT_MAX)


async def test_mail_host_is_resolved_by_the_servers_resolver_and_each_of_its_addresses_tried():
    asked = []

    async def resolve(host):
        asked.append(host)
        return Answer(("127.0.0.2", "127.0.0.1"))       # nothing listens at the first one

    async with smtp_receiver() as receiver, mailer(receiver, host="mail.example.invalid", resolve=resolve) as made:
        made.put(alert())
        await eventually(lambda: receiver.messages)
    assert asked == ["mail.example.invalid"]


async def test_mail_password_is_used_and_a_wrong_one_logged_without_it(caplog):
    async with smtp_receiver(with_login=True) as receiver:
        async with mailer(receiver, user="spokes", password="secret") as made:
            made.put(alert())
            await eventually(lambda: receiver.messages)
        assert receiver.logins == [("spokes", "secret")]
        async with mailer(receiver, user="spokes", password="hush-hush") as made:
            made.put(alert())
            await eventually(lambda: any(one.msg == "e-mail not sent" for one in caplog.records), within_s=20)
    assert "hush-hush" not in caplog.text


async def test_mail_flood_is_bounded_and_says_what_it_left_out():
    async with smtp_receiver() as receiver:
        async with mailer(receiver) as made:
            for number in range(LINE_COUNT_MAX + 7):
                made.put(alert(str(number)))
            await eventually(lambda: receiver.messages)
        lines = receiver.messages[0].get_content().splitlines()
    assert lines[0] == "7 older ones are left out."
    assert len(lines) == LINE_COUNT_MAX + 1


async def test_mail_of_a_whole_server_tells_an_alert(config):
    async with smtp_receiver() as receiver:
        with_mail = dataclasses.replace(
            config, smtp=f"smtp://127.0.0.1:{receiver.port}", mail_from="a@example.net", mail_to=("b@example.net",)
        )
        server = Server(with_mail, make_engine=FakeEngine)
        await server.start()
        try:
            server.notifications.alerts.raise_("disk", "/data", Severity.CRITICAL, "1% of the disk are free")
            await eventually(lambda: receiver.messages)
        finally:
            server.force_stop()
            await server.stop()


def test_mail_without_addresses_or_password_file_is_a_clear_error(config, tmp_path):
    with pytest.raises(ConfigError, match="whom"):
        make_mailer(dataclasses.replace(config, smtp="smtp://mail.example.net"), Resolver().addresses)
    with pytest.raises(ConfigError, match="cannot be read"):
        make_mailer(
            dataclasses.replace(
                config, smtp="smtp://mail.example.net", mail_from="a@b.c", mail_to=("a@b.c",),
                smtp_password_file=str(tmp_path / "none"),
            ),
            Resolver().addresses,
        )  # fmt: skip
    assert make_mailer(config, Resolver().addresses) is None
