import logging
import os

import pytest

from spokes import clock
from spokes.tcp_memory import (
    LOG_INTERVAL_S,
    LOOK_INTERVAL_BUSY_S,
    LOOK_INTERVAL_S,
    TcpMemory,
    TcpMemoryWatch,
    tcp_memory,
)

PAGE = os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def proc(tmp_path):
    """A /proc of our own making; call it with the pages that TCP uses, of 1000."""
    limits, sockets = tmp_path / "sys/net/ipv4/tcp_mem", tmp_path / "net/sockstat"
    limits.parent.mkdir(parents=True)
    sockets.parent.mkdir()
    limits.write_text("1000\t1333\t2000\n")

    def use(pages):
        sockets.write_text(
            f"sockets: used 290\nTCP: inuse 22 orphan 0 tw 3 alloc 24 mem {pages}\nUDP: inuse 1 mem 7777\n"
        )
        return tmp_path

    use(0)
    return use


class RecordedEngine:
    def __init__(self):
        self.noted = []
        self.reclaimed = 0

    def note_kernel_memory(self, used_bytes, limit_bytes):
        self.noted.append((used_bytes, limit_bytes))

    def stats(self):
        return {"streams_reclaimed": self.reclaimed}


def test_tcp_memory_is_read_in_bytes(proc):
    assert tcp_memory(proc(123)) == TcpMemory(123 * PAGE, 1000 * PAGE)


@pytest.mark.parametrize("name", ["sys/net/ipv4/tcp_mem", "net/sockstat"])
@pytest.mark.parametrize("text", [None, "", "TCP: inuse", "TCP: mem x"])
def test_tcp_memory_that_the_kernel_does_not_tell_is_unknown(proc, name, text):
    folder = proc(123)
    (folder / name).unlink()
    if text is not None:
        (folder / name).write_text(text)
    engine = RecordedEngine()
    assert tcp_memory(folder) is None
    assert TcpMemoryWatch(engine, folder).look() == LOOK_INTERVAL_S
    assert engine.noted == []


def test_tcp_memory_of_this_machine_is_told():
    memory = tcp_memory()
    assert memory is not None
    assert memory.used_bytes >= 0
    assert memory.limit_bytes > 0


@pytest.mark.parametrize(("pages", "wait_s"), [(250, LOOK_INTERVAL_S), (251, LOOK_INTERVAL_BUSY_S)])
def test_tcp_memory_watch_tells_the_engine_and_looks_more_often_where_much_is_used(proc, pages, wait_s):
    engine = RecordedEngine()
    assert TcpMemoryWatch(engine, proc(pages)).look() == wait_s
    assert engine.noted == [(pages * PAGE, 1000 * PAGE)]


def test_tcp_memory_watch_logs_what_was_ended_once_in_its_interval(proc, caplog):
    engine = RecordedEngine()
    manual = clock.ManualClock()
    with clock.replaced(manual), caplog.at_level(logging.WARNING):
        watch = TcpMemoryWatch(engine, proc(400))
        engine.reclaimed = 2            # for want of buffers, before the kernel's memory was short
        watch.look()
        proc(800)
        watch.look()
        assert caplog.records == []
        engine.reclaimed = 12
        watch.look()
        engine.reclaimed = 32
        watch.look()
        assert [record.streams for record in caplog.records] == [10]
        manual.advance(LOG_INTERVAL_S)
        proc(700)                       # what was ended since is told, though all is well again
        watch.look()
        assert [record.streams for record in caplog.records] == [10, 20]
        manual.advance(LOG_INTERVAL_S)
        watch.look()
        assert len(caplog.records) == 2
