"""An event loop on virtual time: nothing is waited for, and the order of simultaneous events is drawn."""

from __future__ import annotations

import asyncio
import random
from asyncio import events
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple

if TYPE_CHECKING:  # a name of the type stubs alone: what a loop runs as a task depends on Python's version
    from asyncio import _CoroutineLike

_Result = TypeVar("_Result")
_TURNS_IN_A_MOMENT = 5_000
_HELD_BACK = 0.3

_Args = TypeVarTuple("_Args")


class Spinning(Exception):
    """Something goes on and on without any time passing."""


def _never() -> bool:
    return False


def _nothing() -> None:
    """What is left of a callback that was cancelled."""


class _Callback(asyncio.TimerHandle):
    """A handle that does without asyncio's own debugging aids, for the sake of speed."""

    __slots__ = ()

    def __init__(
        self, callback: Callable[..., object], args: tuple[Any, ...], context: Context | None
    ) -> None:
        self._callback = callback
        self._args = args
        self._context = context or copy_context()
        self._cancelled = False

    def cancel(self) -> None:
        self._cancelled = True
        self._callback, self._args = _nothing, ()


class VirtualLoop(asyncio.BaseEventLoop):
    """asyncio's own loop, but for time, which jumps to the next timer when nothing else is to be done.

    Callbacks run in the order in which they were asked for, as asyncio promises. Of timers that are due at the
    same moment, each fires in a turn drawn by `draw`, since on a real clock any of them may be the first. What
    asyncio would log, such as an exception that nobody asked for, goes to `complain`.
    """

    def __init__(self, draw: random.Random, complain: Callable[[str], None]) -> None:
        super().__init__()
        self.set_exception_handler(self._complain)
        self._draw = draw
        self._told = complain
        self._now = 0.0
        self._soon: deque[_Callback] = deque()
        self._later: list[tuple[float, int, _Callback]] = []
        self._numbers = 0
        self._tasks: list[asyncio.Task[Any]] = []

    def time(self) -> float:
        return self._now

    def call_soon(
        self, callback: Callable[[*_Args], object], *args: *_Args, context: Context | None = None
    ) -> asyncio.Handle:
        handle = _Callback(callback, args, context)
        self._soon.append(handle)
        return handle

    def call_later(
        self,
        delay: float,
        callback: Callable[[*_Args], object],
        *args: *_Args,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[*_Args], object], *args: *_Args, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = _Callback(callback, args, context)
        self._numbers += 1
        heappush(self._later, (when, self._numbers, handle))
        return handle

    def create_task(self, coro: _CoroutineLike[_Result], **options: Any) -> asyncio.Task[_Result]:
        task = super().create_task(coro, **options)
        self._tasks.append(task)
        return task

    def tasks_left(self) -> list[asyncio.Task[Any]]:
        """Return the tasks that have not ended, in the order in which they began."""
        self._tasks = [task for task in self._tasks if not task.done()]
        return self._tasks

    def advance(self, until: float, done: Callable[[], bool] = _never) -> None:
        """Run whatever is due up to this time, or until nothing more is to be done at a moment when `done`."""
        outer = events._get_running_loop()
        events._set_running_loop(self)
        try:
            while self._next_moment(until) and not done():
                self._live_through_it()
        finally:
            events._set_running_loop(outer)

    def _next_moment(self, until: float) -> bool:
        timers = self._later
        if not self._soon:
            while timers and timers[0][2]._cancelled:
                heappop(timers)
            if not timers or timers[0][0] > until:
                self._now = max(self._now, until)
                return False
            self._now = max(self._now, timers[0][0])
        return True

    def _live_through_it(self) -> None:
        soon, timers, now = self._soon, self._later, self._now
        for _ in range(_TURNS_IN_A_MOMENT):
            if timers and timers[0][0] <= now:
                self._fire(now)
            if not soon:
                return
            for _ in range(len(soon)):
                handle = soon.popleft()
                if not handle._cancelled:
                    try:
                        handle._context.run(handle._callback, *handle._args)
                    except Exception as error:  # noqa: BLE001 - as asyncio does: told, and gone on from
                        self._complain(self, {"message": f"in {handle._callback}", "exception": error})
        raise Spinning(f"{_TURNS_IN_A_MOMENT} turns of the loop at {now:g} s")

    def _fire(self, now: float) -> None:
        soon, timers = self._soon, self._later
        due = []
        while timers and timers[0][0] <= now:
            timer = heappop(timers)
            if not timer[2]._cancelled:
                due.append(timer)
        if len(due) > 1:
            self._draw.shuffle(due)
        for timer in due:
            # In a later turn, unless there would be none.
            if soon and self._draw.random() < _HELD_BACK:
                heappush(timers, timer)
            else:
                soon.append(timer[2])

    def _complain(self, _loop: object, context: dict[str, Any]) -> None:
        self._told(f"{context['message']}: {context.get('exception')!r}")
