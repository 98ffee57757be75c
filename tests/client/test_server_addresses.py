"""The server's addresses while its name servers come and go."""

import asyncio

import pytest

from spokes.client import server_addresses
from spokes.client.server_addresses import ServerAddresses
from spokes.errors import NobodyThereError
from spokes.resolver import Answer

HOST = "tun.example"


class Zone:
    def __init__(self, *addresses):
        self.found = Answer(addresses)
        self.asked = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def resolve(self, host):
        self.asked += 1
        await self.gate.wait()
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


async def test_of_asks_each_time_and_literal_addresses_never():
    zone = Zone("192.0.2.1", "192.0.2.2", "2001:db8::1")
    addresses = ServerAddresses(zone.resolve)
    for _ in range(2):
        assert await addresses.of(HOST) == ["192.0.2.1", "2001:db8::1", "192.0.2.2"]
    assert await addresses.of("192.0.2.9") == ["192.0.2.9"]
    assert zone.asked == 2


async def test_of_name_never_found_is_nobody_there():
    zone = Zone()
    zone.found = OSError(2, "no such name")
    with pytest.raises(NobodyThereError, match=r"cannot resolve tun\.example: no such name"):
        await ServerAddresses(zone.resolve).of(HOST)


async def test_of_failing_look_up_keeps_the_last_addresses():
    zone = Zone("192.0.2.1")
    addresses = ServerAddresses(zone.resolve)
    await addresses.of(HOST)
    zone.found = OSError(11, "nobody answers")
    assert await addresses.of(HOST) == ["192.0.2.1"]


async def test_of_slow_look_up_is_waited_for_ever_less_and_its_answer_is_found(monkeypatch):
    waits = []
    timeout = asyncio.timeout
    monkeypatch.setattr(server_addresses.asyncio, "timeout", lambda s: waits.append(s) or timeout(s and 0.001))
    zone = Zone("192.0.2.1")
    addresses = ServerAddresses(zone.resolve)
    await addresses.of(HOST)
    zone.gate.clear()
    for _ in range(3):
        assert await addresses.of(HOST) == ["192.0.2.1"]
    assert waits == [None, 1.0, 0.2, 0.2]
    assert zone.asked == 2                           # one look-up, whoever waits
    zone.found = Answer(("192.0.2.7",))
    zone.gate.set()
    await asyncio.gather(*addresses._lookups.values())
    assert await addresses.of(HOST) == ["192.0.2.7"]
    assert waits[-1] == 1.0


async def test_stop_cancels_what_is_under_way():
    zone = Zone("192.0.2.1")
    zone.gate.clear()
    addresses = ServerAddresses(zone.resolve)
    asking = asyncio.create_task(addresses.of(HOST))
    await asyncio.sleep(0)
    (lookup,) = addresses._lookups.values()
    addresses.stop()
    await asyncio.gather(asking, lookup, return_exceptions=True)
    assert lookup.cancelled()
    assert addresses._lookups == {}
