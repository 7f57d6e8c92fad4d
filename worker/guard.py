"""The guard: keeps a bad deploy from emptying a queue into the dead-letter queue, and its jobs from stopping others'.

It watches each producer by itself, and all together. While nearly every job of a producer fails in a way that points to
a bad deploy, a few of its jobs are tried at a time until one succeeds, and its others are deferred. The intake is
paused only where the queue brings nothing else, and then a whole pass over it is made now and then.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from worker.common.clock import SYSTEM_CLOCK, Clock
from worker.common.tasks import cancel, start
from worker.contract.disposition import Disposition, Ending
from worker.contract.errors import Deferred, JobError
from worker.contract.intake import Intake, PauseReason
from worker.contract.job import Producer
from worker.observability.log import Log

_TRIES = 3  # jobs of a tripped producer that are tried at a time
_TRIES_TOGETHER = 12  # the same for all producers that only all together have tripped
_NEWCOMERS = 12  # producers that nothing is known of and that have a try at once; the others wait for one
_MOST_PRODUCERS = 1000
_ACCOUNTS = 20  # at least so many have to fail for a producer to trip
_LONG_PASS = 100  # deliveries; beside others' jobs the broker is asked no more often how long the queue is
_REST = 4  # times that a pass took: so long is the intake paused after it, within limits
_LONGEST_REST = 600.0


class FailureWindow:
    """The last `size` jobs that LCM answered or failed, and how many of them failed.

    One account counts for a twentieth of them at most, by its latest jobs: a producer that repeats one bad job is no
    bad deploy. It trips when `ratio` of a full window failed, and stays so until a job succeeds. A ratio of 0 switches
    it off.
    """

    def __init__(self, size: int, ratio: float) -> None:
        self.tripped = False
        self._size = size
        self._needed = ratio * size
        self._most_of_one = max(1, size // _ACCOUNTS)
        self._last: OrderedDict[tuple[int, int], bool] = OrderedDict()
        self._turns: dict[int, tuple[int, int]] = {}
        self._failed = 0

    def __repr__(self) -> str:
        state = "tripped" if self.tripped else "watching"
        return f"<FailureWindow {state}, {self._failed} of the last {len(self._last)} failed>"

    @property
    def has_success(self) -> bool:
        """Whether a job of the window did not fail."""
        return self._failed < len(self._last)

    def trip(self) -> None:
        """Count as tripped whatever the window holds."""
        self.tripped = True

    def job_ended(self, account: str, *, failed: bool) -> bool:
        """Take note of a job's end; return whether `tripped` has changed."""
        if not self._needed:
            return False
        if self.tripped and not failed:
            self._reset()
            self._note(account, failed=False)
            return True
        self._note(account, failed=failed)
        if self.tripped:
            return False
        self.tripped = len(self._last) >= self._size and self._failed >= self._needed
        return self.tripped

    def _note(self, account: str, *, failed: bool) -> None:
        # A text may take a kibibyte. Python's hash has 64 bits, and a seed that each process draws: nobody can choose
        # accounts that share one, and two that did by chance would only count as one.
        key = hash(account)
        first, turn = self._turns.get(key, (0, 0))
        self._last[key, turn] = failed
        self._failed += failed
        self._turns[key] = (first, turn + 1)
        if turn - first >= self._most_of_one:
            self._drop(key, first)
        elif len(self._last) > self._size:
            self._drop(*next(iter(self._last)))

    def _drop(self, key: int, first: int) -> None:
        """Leave out the oldest job of an account."""
        self._failed -= self._last.pop((key, first))
        _, turn = self._turns.pop(key)
        if first + 1 < turn:
            self._turns[key] = (first + 1, turn)

    def _reset(self) -> None:
        self.tripped = False
        self._last.clear()
        self._turns.clear()
        self._failed = 0


@dataclass(slots=True)
class _Tries:
    """Jobs that may be tried: `most` at a time, with `pause` seconds at most between two times."""

    most: int
    pause: float
    clock: Clock
    _left: int = 0
    _next: float = 0.0

    def __post_init__(self) -> None:
        self._next = self._later()

    def take(self) -> bool:
        """Take one, if there is one."""
        if self.clock.monotonic() >= self._next:
            self._next = self._later()
            self._left = self.most
        self._left -= 1
        return self._left >= 0

    def _later(self) -> float:
        return self.clock.monotonic() + self.clock.jitter(self.pause / 2, self.pause)


@dataclass(slots=True)
class _Watched:
    """A producer: its window, and the tries it has while that has tripped.

    `tries` is its own where it has tripped by itself. `has_first_try` gives it one at once. `came` is when its last job
    was delivered.
    """

    window: FailureWindow
    tries: _Tries | None = None
    has_first_try: bool = False
    came: float = 0.0

    def may_try(self) -> bool:
        if self.has_first_try:
            self.has_first_try = False
            return True
        return self.tries is not None and self.tries.take()


@dataclass(slots=True)
class _Pass:
    """So many deliveries as are `left`."""

    left: int
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def count(self) -> None:
        self.left -= 1
        if self.left <= 0:
            self.over.set()


@dataclass
class Guard:
    """Admits jobs or has them deferred, by their producer; pauses the intake where it would defer all of the queue.

    Args:
        size, ratio: those of each window, see FailureWindow.
        intake: what is paused.
        depth: tells how many jobs wait at the broker, 0 where it doesn't say.
        log: is told when a producer trips, and when it is over.
        pause: the longest time in seconds between two tries.
    """

    size: int
    ratio: float
    intake: Intake
    depth: Callable[[], Awaitable[int]]
    log: Log
    pause: float
    clock: Clock = SYSTEM_CLOCK
    _whole: FailureWindow = field(init=False)
    _tries_together: _Tries = field(init=False)
    _newcomers: _Tries = field(init=False)
    _producers: OrderedDict[Producer, _Watched] = field(init=False, default_factory=OrderedDict)
    _pass: _Pass | None = field(init=False, default=None)
    _passing: asyncio.Task[None] | None = field(init=False, default=None)
    _last_error: str = field(init=False, default="")

    def __post_init__(self) -> None:
        self._whole = FailureWindow(self.size, self.ratio)
        self._tries_together = self._tries(_TRIES_TOGETHER)
        self._newcomers = self._tries(_NEWCOMERS, at_once=_NEWCOMERS)

    def admit(self, producer: Producer) -> Deferred | None:
        """Tell why a producer's job is not to be looked up now; None where it is."""
        watched = self._watched(producer.known)
        watched.came = self.clock.monotonic()
        if self._pass is not None:
            self._pass.count()
        if not watched.window.tripped or watched.may_try():
            return None
        return Deferred("nearly every job of its producer fails; a few are tried at a time", further=True)

    def __call__(self, disposition: Disposition) -> None:
        """Take note of how a delivery ended: well, or by an error that counts, be it tried again later.

        What LCM was not asked for counts as neither: a producer could else make up for its other jobs by such.
        """
        failed = disposition.suspicious
        if disposition.ending is not Ending.SUCCEEDED and not failed:
            return
        account, error, producer = disposition.account, disposition.error, disposition.producer.known
        watched = self._watched(producer)
        # What a producer in good standing achieves tells nothing about those that have tripped together.
        counts = watched.window.tripped or not self._whole.tripped
        if watched.window.job_ended(account, failed=failed):
            if watched.window.tripped:
                self._tripped_alone(producer, watched, error)
            else:
                self._recovered(producer)
        if counts and self._whole.job_ended(account, failed=failed):
            if self._whole.tripped:
                self._tripped_together(error)
            else:
                self._recovered_together()

    @property
    def tripped(self) -> int:
        """How many producers have tripped."""
        return sum(watched.window.tripped for watched in self._producers.values())

    @property
    def trouble(self) -> str:
        """How many producers have tripped, and by which error the last one did; "" where none has."""
        tripped = self.tripped
        return f"{tripped} of {len(self._producers)} producers, by {self._last_error}" if tripped else ""

    async def stop(self) -> None:
        """Pause no more."""
        await cancel(self._passing)

    def _tries(self, most: int, at_once: int = 0) -> _Tries:
        return _Tries(most, self.pause, self.clock, at_once)

    def _watched(self, producer: Producer) -> _Watched:
        watched = self._producers.get(producer)
        if watched is None:
            if len(self._producers) >= _MOST_PRODUCERS:
                self._forget_one()
            watched = self._producers[producer] = _Watched(FailureWindow(self.size, self.ratio))
            if self._whole.tripped:
                self._suspect(watched)
                watched.has_first_try = self._newcomers.take()
        self._producers.move_to_end(producer)
        return watched

    def _forget_one(self) -> None:
        """Forget the one that was seen longest ago, of those without a success, since anybody can make many of them."""
        oldest = next(iter(self._producers))
        failing = (each for each, watched in self._producers.items() if not watched.window.has_success)
        del self._producers[next(failing, oldest)]

    def _suspect(self, watched: _Watched) -> None:
        watched.window.trip()
        watched.tries = self._tries_together

    def _tripped_alone(self, producer: Producer, watched: _Watched, error: JobError | None) -> None:
        watched.tries = self._tries(_TRIES)
        self._tell_tripped(
            error, user_id=producer.user_id, app_id=producer.app_id, route=producer.route, producers=1
        )
        self._begin_passes()

    def _tripped_together(self, error: JobError | None) -> None:
        self._tries_together = self._tries(_TRIES_TOGETHER)
        self._newcomers = self._tries(_NEWCOMERS, at_once=_NEWCOMERS)
        suspects = [
            each for each in self._producers.values() if not (each.window.tripped or each.window.has_success)
        ]
        for watched in suspects:
            self._suspect(watched)
        if suspects:
            self._tell_tripped(error, producers=len(suspects))
            self._begin_passes()

    def _tell_tripped(self, error: JobError | None, **fields: str | int) -> None:
        self._last_error = error.code if error else ""
        self.log.error(
            "guard.tripped",
            error=self._last_error,
            **fields,
            remedy="nearly every job fails in the same way: look for a change at LCM, in this worker or in"
            " what the producer sends; where the error is about the session and not about accounts, list it in"
            " lcm.session_errors",
        )

    def _recovered(self, producer: Producer) -> None:
        self.log.info(
            "guard.recovered", user_id=producer.user_id, app_id=producer.app_id, route=producer.route
        )
        self._begin_passes()

    def _recovered_together(self) -> None:
        for watched in self._producers.values():
            watched.has_first_try = watched.tries is self._tries_together

    def _begin_passes(self) -> None:
        """Begin a new pass over the queue: something has changed. Passes end by themselves with the last trip."""
        if self._passing is not None:
            self._passing.cancel()
        self.intake.resume(PauseReason.GUARD)
        self._pass = None
        self._passing = start(self._make_passes(), "guard")

    async def _make_passes(self) -> None:
        """Go through the queue, and rest after each pass while nobody else's jobs come.

        Where these come singly, a pass may be over before the next one: so those of the last `pause` count, too.
        """
        fewest = 0
        while self.tripped:
            depth = await self.depth()
            began = self.clock.monotonic()
            self._pass = _Pass(max(depth, fewest))
            if self._pass.left:
                await self._pass.over.wait()
            ended = self.clock.monotonic()
            if self._others_came(since=min(began, ended - self.pause)):
                fewest = _LONG_PASS
                continue
            # Other workers may keep the queue empty, so at least one job is waited for before the next rest.
            fewest = 1
            self.intake.pause(PauseReason.GUARD)
            rest = max(
                self.clock.jitter(self.pause / 2, self.pause), min((ended - began) * _REST, _LONGEST_REST)
            )
            await self.clock.sleep(rest)
            self.intake.resume(PauseReason.GUARD)
        self._pass = None

    def _others_came(self, *, since: float) -> bool:
        """Whether a job of a producer that has not tripped was delivered."""
        return any(
            watched.came >= since and not watched.window.tripped for watched in self._producers.values()
        )
