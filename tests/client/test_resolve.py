import asyncio

import pytest

from spokes.client.resolve import Resolver, literal_addresses, lookup_system
from tests.support.eventually import eventually


class Zone:
    def __init__(self, **names):
        self.names = names
        self.asked = []

    async def lookup(self, host):
        self.asked.append(host)
        found = self.names[host]
        if isinstance(found, Exception):
            raise found
        return found


@pytest.mark.parametrize(
    ("host", "addresses"),
    [
        ("127.0.0.1", ("127.0.0.1",)),
        ("[::1]", ("::1",)),
        ("::1", ("::1",)),
        ("localhost", ("127.0.0.1", "::1")),
        ("LocalHost.", ("127.0.0.1", "::1")),
        ("tun.localhost", ("127.0.0.1", "::1")),
        ("notlocalhost", ()),
        ("localhost.example", ()),
        ("db.internal", ()),
        ("1.2.3", ()),
    ],
)
def test_literal_addresses(host, addresses):
    assert literal_addresses(host) == addresses


async def test_use_names_are_looked_up_once_literals_never():
    zone = Zone(db=["10.0.0.1", "10.0.0.2"])
    resolver = Resolver(lookup=zone.lookup)
    await resolver.use({"db", "127.0.0.1", "localhost"})
    await resolver.use({"db"})
    assert zone.asked == ["db"]
    assert resolver.addresses("db") == ("10.0.0.1", "10.0.0.2")


async def test_refresh_failing_lookup_keeps_last_addresses():
    zone = Zone(db=["10.0.0.1"])
    resolver = Resolver(lookup=zone.lookup)
    await resolver.use({"db"})
    zone.names["db"] = OSError("no answer")
    assert await resolver.refresh() is False
    assert resolver.addresses("db") == ("10.0.0.1",)


async def test_refresh_rotated_answer_is_no_change():
    zone = Zone(db=["10.0.0.1", "10.0.0.2"])
    resolver = Resolver(lookup=zone.lookup)
    await resolver.use({"db"})
    zone.names["db"] = ["10.0.0.2", "10.0.0.1"]
    assert await resolver.refresh() is False


async def test_run_new_address_is_reported():
    zone = Zone(db=["10.0.0.1"])
    resolver = Resolver(lookup=zone.lookup, refresh_interval_s=0.001)
    await resolver.use({"db"})
    changes = []
    resolver.on_change = lambda: changes.append(resolver.addresses("db"))
    running = asyncio.create_task(resolver.run())
    zone.names["db"] = ["10.0.0.9"]
    await eventually(lambda: changes)
    running.cancel()
    assert changes[0] == ("10.0.0.9",)


async def test_refresh_failing_name_is_logged_once_until_it_works(caplog):
    zone = Zone(db=OSError("no answer"))
    resolver = Resolver(lookup=zone.lookup)
    await resolver.use({"db"})
    await resolver.refresh()
    assert len(caplog.records) == 1
    zone.names["db"] = ["10.0.0.1"]
    await resolver.refresh()
    zone.names["db"] = OSError("again")
    await resolver.refresh()
    assert len(caplog.records) == 2


async def test_use_slow_name_holds_nobody_up_and_is_told_later():
    answered = asyncio.Event()

    async def lookup(host):
        if host == "slow":
            await answered.wait()
        return ["10.0.0.1"]

    resolver = Resolver(lookup=lookup, patience_s=0.01)
    changes = []
    resolver.on_change = lambda: changes.append(resolver.addresses("slow"))
    await resolver.use({"slow", "db"})
    assert resolver.addresses("db") == ("10.0.0.1",)
    assert resolver.addresses("slow") == ()
    answered.set()
    await eventually(lambda: changes)
    assert changes == [("10.0.0.1",)]


async def test_use_unused_name_is_forgotten():
    zone = Zone(db=["10.0.0.1"])
    resolver = Resolver(lookup=zone.lookup)
    await resolver.use({"db"})
    await resolver.use(set())
    assert resolver.addresses("db") == ()
    assert await resolver.refresh() is False


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "x..y"])
async def test_lookup_system_impossible_name_is_an_os_error(host):
    with pytest.raises(OSError):
        await lookup_system(host)


async def test_lookup_system_localhost_is_found():
    assert "127.0.0.1" in await lookup_system("localhost")
