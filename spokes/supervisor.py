"""Long-lived coroutines under a supervisor: each has a name, begins again when it fails, is counted and shown. What the
event loop calls by itself, again and again, is counted and shown beside them.

Owns: the coroutines' tasks.
Bound: the wait before the next start doubles from RESTART_WAIT_S_MIN to RESTART_WAIT_S_MAX; who then runs for STEADY_S
begins anew with it.
Fails: never. What a coroutine raises, whatever it is, is logged, counted and told; one that returns has failed too.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Literal, TypedDict

from spokes import clock

log = logging.getLogger(__name__)

RESTART_WAIT_S_MIN = 0.25
RESTART_WAIT_S_MAX = 30.0
STEADY_S = 60.0
ERROR_CHARS_MAX = 200

Make = Callable[[], Coroutine[Any, Any, Any]]


class TaskFigures(TypedDict):
    """One coroutine, as it is shown."""

    name: str
    state: Literal["running", "waiting"]  # waiting: for its next start
    failures_total: int
    last_error: str                      # "" as long as it never failed
    failed_at: float                     # Unix time; 0.0 as long as it never failed


class Kept:
    """One coroutine that is kept running, or a callback that goes on by itself."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_waiting = False
        self.failure_count = 0
        self.last_error = ""
        self.failed_at = 0.0
        self.wait_s = 0.0
        self.task: asyncio.Task[None] | None = None
        self.steady: asyncio.TimerHandle | None = None

    def figures(self) -> TaskFigures:
        return {
            "name": self.name,
            "state": "waiting" if self.is_waiting else "running",
            "failures_total": self.failure_count,
            "last_error": self.last_error,
            "failed_at": self.failed_at,
        }


class Supervisor:
    """keep() begins; figures() shows; stop() ends all."""

    def __init__(
        self, *, restart_wait_s: float = RESTART_WAIT_S_MIN, steady_s: float = STEADY_S,
        on_failed: Callable[[str, str], None] | None = None, on_steady: Callable[[str], None] | None = None,
    ) -> None:
        """`on_failed(name, words)` after each failure; `on_steady(name)` when one that failed has run for a while."""
        self._restart_wait_s = restart_wait_s
        self._steady_s = steady_s
        self.on_failed = on_failed
        self.on_steady = on_steady
        self._kept: dict[str, Kept] = {}

    def keep(self, name: str, make: Make) -> asyncio.Task[None]:
        """Runs `make()` until the task is cancelled, again each time it fails. Names are told apart: one runs once."""
        kept = self._named(name)
        kept.task = task = asyncio.get_running_loop().create_task(self._keep(kept, make), name=name)
        return task

    def drop(self, name: str) -> None:
        """End one, and forget it. Returns at once."""
        kept = self._kept.pop(name, None)
        if kept is None or kept.task is None:
            return
        if kept.steady is not None:
            kept.steady.cancel()
        kept.task.cancel()

    def follow(self, name: str) -> Callable[[BaseException], None]:
        """For what is called again without us, such as a reader of the event loop: whoever catches a failure of it
        reports it here. The name is taken for good."""
        kept = self._named(name)

        def failed(error: BaseException) -> None:
            self._failed(kept, error)
            self._await_steady(kept)

        return failed

    def _named(self, name: str) -> Kept:
        before = self._kept.get(name)
        if before is not None and (before.task is None or not before.task.done()):
            raise ValueError(f"{name} is kept already")
        kept = self._kept[name] = Kept(name)
        return kept

    def figures(self) -> list[TaskFigures]:
        return [kept.figures() for kept in self._kept.values()]

    async def stop(self) -> None:
        """Ends all, those that were begun last first. Idempotent."""
        tasks = [kept.task for kept in reversed(self._kept.values()) if kept.task is not None]
        for task in tasks:
            task.cancel()
        for kept in self._kept.values():
            if kept.steady is not None:
                kept.steady.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep(self, kept: Kept, make: Make) -> None:
        while True:
            if kept.wait_s:
                self._await_steady(kept)
            try:
                await make()
                self._failed(kept, None)
            except asyncio.CancelledError:
                if _is_cancelled():
                    raise
                # Something that it waited for was cancelled, not it.
                self._failed(kept, asyncio.CancelledError("what it waited for was cancelled"))
            except Exception as error:
                self._failed(kept, error)
            finally:
                if kept.steady is not None:
                    kept.steady.cancel()
            kept.is_waiting = True
            await asyncio.sleep(kept.wait_s)
            kept.is_waiting = False

    def _failed(self, kept: Kept, error: BaseException | None) -> None:
        words = "it ended" if error is None else f"{type(error).__name__}: {error}".removesuffix(": ")
        kept.failure_count += 1
        kept.last_error = words[:ERROR_CHARS_MAX]
        kept.failed_at = clock.wall_s()
        kept.wait_s = min(max(2 * kept.wait_s, self._restart_wait_s), RESTART_WAIT_S_MAX)
        log.error(
            "task failed", exc_info=error,
            extra={"task": kept.name, "failure_count": kept.failure_count, "wait_s": round(kept.wait_s, 2)},
        )
        if self.on_failed is not None:
            self._tell(self.on_failed, kept.name, kept.last_error)

    def _await_steady(self, kept: Kept) -> None:
        if kept.steady is not None:
            kept.steady.cancel()
        kept.steady = asyncio.get_running_loop().call_later(self._steady_s, self._steady, kept)

    def _steady(self, kept: Kept) -> None:
        kept.wait_s = 0.0
        log.info("task runs again", extra={"task": kept.name})
        if self.on_steady is not None:
            self._tell(self.on_steady, kept.name)

    @staticmethod
    def _tell(listener: Callable[..., None], *words: str) -> None:
        try:
            listener(*words)
        except Exception:
            log.exception("failure of a task not told", extra={"task": words[0]})


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0
