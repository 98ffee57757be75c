"""Output that nobody waits for."""

import contextlib
import fcntl
import io
import os
import subprocess
import sys
import textwrap

import pytest

from spokes.outlet import Outlet, OutletFile, outlet_of
from tests.support.eventually import eventually


class Pipe:
    """A small pipe whose writing end is a stream; read when the test says so."""

    def __init__(self) -> None:
        self.read_fd, write_fd = os.pipe()
        self.size = fcntl.fcntl(write_fd, fcntl.F_SETPIPE_SZ, 4096)
        self.stream = os.fdopen(write_fd, "w")
        os.set_blocking(self.read_fd, False)
        self.seen = b""

    def read(self) -> str:
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self.read_fd, 65536):
                self.seen += data
        return self.seen.decode()

    def close(self) -> None:
        os.close(self.read_fd)
        self.stream.close()


@pytest.fixture
def pipe():
    pipe = Pipe()
    yield pipe
    pipe.close()


async def test_outlet_full_pipe_drops_counts_and_says_so_when_it_is_free_again(pipe):
    outlet = Outlet(pipe.stream, chars_max=10_000)
    line = "x" * 99 + "\n"
    for _ in range(1000):
        outlet.write(line)  # returns, whoever reads
    assert outlet.dropped_count > 800
    assert not outlet.idle
    assert not outlet.flush(0.01)
    await eventually(lambda: pipe.read().endswith("nobody read the output)\n"))
    outlet.write("later\n")
    await eventually(lambda: pipe.read().endswith("later\n"))
    lines = pipe.read().splitlines()
    said = [int(line[1:].partition(" ")[0]) for line in lines if line.endswith("nobody read the output)")]
    assert sum(said) == outlet.dropped_count
    assert lines.count("x" * 99) + outlet.dropped_count == 1000
    assert outlet.flush(5)
    assert outlet.idle


async def test_outlet_room_again_count_stands_where_the_lines_are_missing(pipe):
    outlet = Outlet(pipe.stream, chars_max=10_000)
    for number in range(300):
        outlet.write(f"{number:099d}\n")
    assert outlet.dropped_count > 0
    await eventually(lambda: "dropped" in pipe.read())
    outlet.write("later\n")
    await eventually(lambda: "later" in pipe.read())
    following = 0
    for line in pipe.read().splitlines():  # there may be room, and none again, while it is written
        if line.startswith("("):
            following += int(line[1:].partition(" ")[0])
        elif line != "later":
            assert int(line) == following
            following += 1
    assert following == 300


def test_outlet_whole_text_in_order(pipe):
    outlet = Outlet(pipe.stream)
    for number in range(300):
        outlet.write(f"{number}\n")
        pipe.read()
    while not outlet.flush(0.01):
        pipe.read()
    assert pipe.read().split() == [str(number) for number in range(300)]


def test_outlet_stream_made_non_blocking_loses_nothing(pipe):
    os.set_blocking(pipe.stream.fileno(), False)
    outlet = Outlet(pipe.stream)
    outlet.write("y" * 50_000)
    while not outlet.flush(0.01):
        pipe.read()
    assert pipe.read() == "y" * 50_000


def test_outlet_reader_gone_is_nobodys_fault():
    read_fd, write_fd = os.pipe()
    os.close(read_fd)
    with os.fdopen(write_fd, "w") as stream:
        outlet = Outlet(stream)
        outlet.write("lost\n")
        assert outlet.flush(5)


def test_outlet_stream_in_memory_is_written_at_once():
    stream = io.StringIO()
    outlet_of(stream).write("a\n")
    assert stream.getvalue() == "a\n"


def test_outlet_file_writes_what_was_collected_at_its_flush(pipe):
    outlet = Outlet(pipe.stream)
    file = OutletFile(outlet, pipe.stream)
    file.write("a")
    assert outlet.idle
    assert pipe.read() == ""
    file.write("b")
    file.flush()
    assert outlet.flush(5)
    assert pipe.read() == "ab"


PROGRAM = """
    import os, sys
    from spokes.log import setup_logging
    import logging
    setup_logging("json", "info")
    log = logging.getLogger("t")
    log.info("before")
    if sys.argv[1] == "fork":
        pid = os.fork()
        if pid == 0:
            log.info("in the child")
            sys.exit()
        os.waitpid(pid, 0)
    for number in range(int(sys.argv[2])):
        log.info("line", extra={"number": number, "more": "z" * 4000})
"""


def test_logging_program_that_ends_flushes_and_a_fork_logs_too():
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), "fork", "100"], capture_output=True, text=True, timeout=60
    )
    lines = done.stderr.splitlines()
    assert len(lines) == 102, done.stderr[-500:]
    assert sum('"before"' in line for line in lines) == 1
    assert sum('"in the child"' in line for line in lines) == 1


def test_logging_pipe_full_program_ends_all_the_same(pipe):
    child = subprocess.Popen([sys.executable, "-c", textwrap.dedent(PROGRAM), "", "1000"], stderr=pipe.stream)
    assert child.wait(60) == 0
    assert '"before"' in pipe.read()
