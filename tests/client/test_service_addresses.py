import asyncio

import pytest

from spokes.client.service_addresses import ServiceAddresses
from spokes.clock import ManualClock
from spokes.resolver import Answer
from tests.support.eventually import eventually


class Zone:
    def __init__(self, **names):
        self.names = names
        self.asked = []
        self.lifetime_s = 30
        self.gate = None

    async def lookup(self, host):
        self.asked.append(host)
        if self.gate is not None:
            await self.gate.wait()
        found = self.names[host]
        if isinstance(found, Exception):
            raise found
        return Answer(tuple(found), self.lifetime_s)


async def test_use_names_are_looked_up_once_literals_never():
    zone = Zone(db=["10.0.0.1", "10.0.0.2"])
    services = ServiceAddresses(zone.lookup)
    await services.use({"db", "127.0.0.1", "localhost"})
    await services.use({"db"})
    assert zone.asked == ["db"]
    assert services.addresses("db") == ("10.0.0.1", "10.0.0.2")


class Stepper:
    """A services whose clock is the test's: `step` lets time pass and everything that is due be looked up."""

    def __init__(self, zone, **more):
        self.clock = ManualClock()
        self.services = ServiceAddresses(zone.lookup, now=self.clock.monotonic_s, **more)
        self.changes = 0
        self.services.on_change = self._count

    def _count(self):
        self.changes += 1

    async def step(self, seconds):
        self.clock.advance(seconds)
        self.services.ask_due()
        while asking := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(asking)


async def test_ask_due_failing_lookup_keeps_last_addresses():
    zone = Zone(db=["10.0.0.1"])
    stepper = Stepper(zone)
    await stepper.services.use({"db"})
    zone.names["db"] = OSError("no answer")
    await stepper.step(30)
    assert len(zone.asked) == 2
    assert stepper.services.addresses("db") == ("10.0.0.1",)
    assert stepper.changes == 0


async def test_ask_due_rotated_answer_is_no_change():
    zone = Zone(db=["10.0.0.1", "10.0.0.2"])
    stepper = Stepper(zone)
    await stepper.services.use({"db"})
    zone.names["db"] = ["10.0.0.2", "10.0.0.1"]
    await stepper.step(30)
    assert stepper.changes == 0
    assert stepper.services.addresses("db") == ("10.0.0.1", "10.0.0.2")


@pytest.mark.parametrize(
    ("lifetime_s", "asked_after_s"),
    [(0, 1), (1, 1), (7, 7), (30, 30), (600, 30)],
    ids=["none", "least", "as told", "most", "a day is not believed"],
)
async def test_ask_due_goes_by_the_answers_lifetime_within_bounds(lifetime_s, asked_after_s):
    zone = Zone(db=["10.0.0.1"])
    zone.lifetime_s = lifetime_s
    stepper = Stepper(zone)
    await stepper.services.use({"db"})
    await stepper.step(asked_after_s - 0.5)
    assert len(zone.asked) == 1
    zone.names["db"] = ["10.0.0.9"]
    await stepper.step(0.5)
    assert len(zone.asked) == 2
    assert (stepper.services.addresses("db"), stepper.changes) == (("10.0.0.9",), 1)


async def test_ask_due_many_names_of_short_lives_are_spread():
    zone = Zone(**{f"db{i}": ["10.0.0.1"] for i in range(500)})
    zone.lifetime_s = 1
    stepper = Stepper(zone)
    await stepper.services.use(set(zone.names))
    zone.asked.clear()
    for _ in range(9):
        await stepper.step(1)
    assert len(zone.asked) == 0  # 500 names, at most 50 look-ups a second
    await stepper.step(1)
    assert len(zone.asked) == 500


async def test_report_refused_dial_asks_at_once_but_not_again_and_again():
    zone = Zone(db=["10.0.0.1"])
    zone.lifetime_s = 600
    stepper = Stepper(zone)
    await stepper.services.use({"db"})
    await stepper.step(5)
    stepper.services.report("db")
    await stepper.step(0)
    assert len(zone.asked) == 2
    for _ in range(100):
        stepper.services.report("db")
        await stepper.step(0)
    assert len(zone.asked) == 2
    await stepper.step(1)
    assert len(zone.asked) == 3
    stepper.services.report("unknown")


async def test_report_while_asking_asks_once_more():
    """The answer under way may be from before the move."""
    zone = Zone(db=["10.0.0.1"])
    zone.lifetime_s = 600
    stepper = Stepper(zone)
    await stepper.services.use({"db"})
    zone.gate = asyncio.Event()
    stepper.clock.advance(30)
    stepper.services.ask_due()
    await eventually(lambda: len(zone.asked) == 2)
    stepper.services.report("db")
    zone.gate.set()
    await stepper.step(0)
    assert len(zone.asked) == 2
    await stepper.step(1)
    assert len(zone.asked) == 3


async def test_ask_due_written_file_makes_every_name_due():
    zone = Zone(db=["10.0.0.1"])
    zone.lifetime_s = 600
    written = [1]
    stepper = Stepper(zone, files_version=lambda: written[0])
    await stepper.services.use({"db"})
    await stepper.step(1)
    assert len(zone.asked) == 1
    written[0] = 2
    await stepper.step(1)
    assert len(zone.asked) == 2


async def test_run_reported_name_is_looked_up_and_told():
    zone = Zone(db=["10.0.0.1"])
    zone.lifetime_s = 600
    services = ServiceAddresses(zone.lookup, check_interval_s=0.001)
    await services.use({"db"})
    changes = []
    services.on_change = lambda: changes.append(services.addresses("db"))
    running = asyncio.create_task(services.run())
    zone.names["db"] = ["10.0.0.9"]
    services.report("db")
    await eventually(lambda: changes)
    running.cancel()
    assert changes[0] == ("10.0.0.9",)


async def test_ask_due_failing_name_is_logged_once_until_it_works_and_asked_ever_less_often(caplog):
    zone = Zone(db=OSError("no answer"))
    stepper = Stepper(zone)
    await stepper.services.use({"db"})
    for _ in range(60):
        await stepper.step(1)
    assert len(zone.asked) == 6  # after 0, 2, 4, 8, 16 and 30 seconds
    assert [record.message for record in caplog.records] == ["service name not resolved"]
    zone.names["db"] = ["10.0.0.1"]
    await stepper.step(30)
    zone.names["db"] = OSError("again")
    await stepper.step(30)
    assert len(caplog.records) == 2


async def test_ask_due_look_up_that_fails_otherwise_is_logged_and_asked_less_often_too(caplog):
    zone = Zone(db=KeyError("a fault of ours"))
    stepper = Stepper(zone)
    await stepper.services.use({"db"})
    assert [record.exc_info[0] for record in caplog.records] == [KeyError]
    for _ in range(3):
        await stepper.step(0.5)
    assert zone.asked == ["db"]
    zone.names["db"] = ["10.0.0.1"]
    await stepper.step(30)
    assert stepper.services.addresses("db") == ("10.0.0.1",)


async def test_use_slow_name_holds_nobody_up_and_is_told_later():
    answered = asyncio.Event()

    async def lookup(host):
        if host == "slow":
            await answered.wait()
        return Answer(("10.0.0.1",))

    services = ServiceAddresses(lookup, patience_s=0.01)
    changes = []
    services.on_change = lambda: changes.append(services.addresses("slow"))
    await services.use({"slow", "db"})
    assert services.addresses("db") == ("10.0.0.1",)
    assert services.addresses("slow") == ()
    answered.set()
    await eventually(lambda: changes)
    assert changes == [("10.0.0.1",)]


async def test_use_unused_name_is_forgotten():
    zone = Zone(db=["10.0.0.1"])
    stepper = Stepper(zone)
    await stepper.services.use({"db"})
    await stepper.services.use(set())
    assert stepper.services.addresses("db") == ()
    await stepper.step(30)
    assert zone.asked == ["db"]
