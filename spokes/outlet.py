"""Standard output and error for programs that must not wait for them: text is queued, a thread of its own writes it.

A pipe that nobody reads and a terminal that was stopped (Ctrl-S) hold up that thread and nothing else.
Bound: QUEUE_CHARS_MAX for each stream; what comes while they are full is dropped and counted, and the count is said as
soon as the stream moves again. Fails: never. A stream that is closed or a full disk loses its text, nobody their work.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TextIO

QUEUE_CHARS_MAX = 1024 * 1024
WRITE_CHARS_MAX = 64 * 1024  # in one system call
EXIT_FLUSH_S = 1.0  # for what still waits when the program ends, all streams together


class Outlet:
    """The way to one stream. Text goes out in the order it came, whole or not at all."""

    def __init__(self, stream: TextIO, *, chars_max: int = QUEUE_CHARS_MAX) -> None:
        self.dropped_count = 0  # of all time
        self.say_dropped: Callable[[int], str] = _dropped_words
        self._stream = stream
        self._descriptor = _descriptor(stream)
        self._chars_max = chars_max
        self._forget()

    def _forget(self) -> None:
        """Begin with nothing: at first, and in a child after a fork, where no other thread lives on."""
        self._moved = threading.Condition(threading.Lock())
        self._queue: deque[str] = deque()
        self._queue_chars = 0
        self._unsaid_count = 0  # dropped since it was last said
        self._writing = False
        self._thread: threading.Thread | None = None

    @property
    def idle(self) -> bool:
        """Everything is written."""
        with self._moved:
            return not self._queue and not self._writing

    def write(self, text: str) -> None:
        """Returns at once. A stream without a descriptor (a buffer in memory) is written to here and now."""
        if not text:
            return
        if self._descriptor is None:
            with contextlib.suppress(OSError, ValueError):
                self._stream.write(text)
                self._stream.flush()
            return
        with self._moved:
            notice = self.say_dropped(self._unsaid_count) if self._unsaid_count else ""
            if self._queue_chars + len(notice) + len(text) > self._chars_max:
                lost = max(1, text.count("\n"))
                self.dropped_count += lost
                self._unsaid_count += lost
                return
            self._unsaid_count = 0
            self._put(notice + text)

    def _put(self, text: str) -> None:
        self._queue.append(text)
        self._queue_chars += len(text)
        if self._thread is None:
            self._thread = threading.Thread(target=self._write_for_ever, name="output", daemon=True)
            self._thread.start()
        self._moved.notify_all()

    def flush(self, within_s: float = EXIT_FLUSH_S) -> bool:
        """Wait until everything is written; not for ever. Whether it is."""
        deadline = time.monotonic() + within_s
        with self._moved:
            while self._queue or self._writing:
                left_s = deadline - time.monotonic()
                if left_s <= 0 or self._thread is None:
                    return False
                self._moved.wait(left_s)
        return True

    # the thread

    def _write_for_ever(self) -> None:
        moved = self._moved
        while moved is self._moved:
            with moved:
                while not self._queue:
                    moved.wait()
                piece = self._take()
                self._writing = True
            _write_all(self._descriptor, piece.encode("utf-8", "backslashreplace"))
            with moved:
                self._writing = False
                if not self._queue and self._unsaid_count:
                    count, self._unsaid_count = self._unsaid_count, 0
                    self._put(self.say_dropped(count))
                moved.notify_all()

    def _take(self) -> str:
        taken = [self._queue.popleft()]
        chars = len(taken[0])
        while self._queue and chars + len(self._queue[0]) <= WRITE_CHARS_MAX:
            taken.append(self._queue.popleft())
            chars += len(taken[-1])
        self._queue_chars -= chars
        return "".join(taken)


class OutletFile:
    """A text file whose writes end in an outlet, for libraries that want one. Collects until it is flushed."""

    def __init__(self, outlet: Outlet, stream: TextIO) -> None:
        self.outlet = outlet
        self.encoding = "utf-8"
        self._stream = stream
        self._pieces: list[str] = []

    def write(self, text: str) -> int:
        self._pieces.append(text)
        return len(text)

    def flush(self) -> None:
        text, self._pieces = "".join(self._pieces), []
        self.outlet.write(text)

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()


_outlets: dict[int, Outlet] = {}  # by descriptor: logs and other lines of one stream keep their order
_making = threading.Lock()


def outlet_of(stream: TextIO) -> Outlet:
    """The one outlet of the stream's descriptor; a new one where it has none."""
    descriptor = _descriptor(stream)
    if descriptor is None:
        return Outlet(stream)
    with _making:
        if descriptor not in _outlets:
            _outlets[descriptor] = Outlet(stream)
        return _outlets[descriptor]


def flush_outlets(within_s: float = EXIT_FLUSH_S) -> None:
    """What waits may still go out, within the time for all together."""
    deadline = time.monotonic() + within_s
    for outlet in list(_outlets.values()):
        outlet.flush(max(0.0, deadline - time.monotonic()))


def _forget_all() -> None:
    global _making
    _making = threading.Lock()
    for outlet in _outlets.values():
        outlet._forget()


def _descriptor(stream: TextIO) -> int | None:
    try:
        return stream.fileno()
    except (OSError, ValueError, AttributeError):
        return None


def _dropped_words(count: int) -> str:
    return f"({count} lines were dropped: nobody read the output)\n"


def _write_all(descriptor: int | None, data: bytes) -> None:
    assert descriptor is not None
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:  # somebody who shares the stream made it non-blocking
            with contextlib.suppress(OSError):
                select.select([], [descriptor], [])
        except OSError:
            return


atexit.register(flush_outlets)
os.register_at_fork(after_in_child=_forget_all)
