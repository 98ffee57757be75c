"""Notifications of a whole server: which name servers are asked for their receivers."""

import dataclasses

import pytest

from spokes.model.tokens import CreateToken
from spokes.model.webhooks import CreateWebhook
from spokes.server.process.app import Server
from spokes.store import Severity
from tests.support.eventually import eventually
from tests.support.fake_engine import FakeEngine
from tests.support.name_server import name_server
from tests.support.operations import do
from tests.support.smtp_receiver import smtp_receiver
from tests.support.webhook_receiver import webhook_receiver

ZONE = "resolver.test"  # a name that only the name server of this test knows


@pytest.fixture(scope="module")
def names():
    with name_server(ZONE) as server:
        server.put_lines("mail IN A 127.0.0.1", "hook IN A 127.0.0.1")
        yield server


async def test_server_asks_the_name_servers_of_its_resolver_for_webhooks_and_mail(config, names):
    async with smtp_receiver() as mailbox, webhook_receiver() as hook:
        config = dataclasses.replace(
            config,
            resolver=(names.address,),
            smtp=f"smtp://mail.{ZONE}:{mailbox.port}",
            mail_from="a@example.net",
            mail_to=("b@example.net",),
        )
        server = Server(config, make_engine=FakeEngine)
        await server.start()
        try:
            url = hook.url.replace("127.0.0.1", f"hook.{ZONE}")
            do(server._store.store, CreateWebhook(url, kinds=("token",), allow_private=True))
            await server.follower.catch_up()
            do(server._store.store, CreateToken("branch"))
            server.follower.wake()
            server.notifications.alerts.raise_("disk", "/data", Severity.CRITICAL, "1% of the disk are free")
            await eventually(lambda: hook.posts and mailbox.messages)
        finally:
            server.force_stop()
            await server.stop()
