"""The guard trips when nearly all of a producer's jobs, for different accounts, fail for good, and then tries a few."""

from __future__ import annotations

import asyncio
import tracemalloc
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.log import RecordingLog
from tests.support.waiting import settled
from worker.common.clock import Clock
from worker.contract.disposition import Disposition, Ending
from worker.contract.errors import (
    ERRORS,
    Expired,
    InternalError,
    JobError,
    LcmRejected,
    LookupFailed,
    Poison,
    ReplyTimeout,
    ResultTooLarge,
)
from worker.contract.intake import PauseReason
from worker.contract.job import Producer
from worker.guard import FailureWindow, Guard


def told(window: FailureWindow, *ends: tuple[str, type[JobError] | None]) -> list[bool]:
    return [window.job_ended(account, failed=error is not None) for account, error in ends]


def test_a_window_of_failures_trips_it() -> None:
    """The last of them says so, and none before."""
    window = FailureWindow(size=10, ratio=0.9)
    ends = [(str(n), LcmRejected) for n in range(10)]
    assert told(window, *ends) == [False] * 9 + [True]
    assert window.tripped


def test_one_account_counts_once() -> None:
    """A producer that repeats one bad job does not stop all others."""
    window = FailureWindow(size=10, ratio=0.9)
    told(window, *[("a", LcmRejected)] * 50)
    assert not window.tripped


def test_some_accounts_that_fail_again_and_again_trip_it() -> None:
    """One counts for a twentieth of the window at most, by its latest jobs, so that twenty bad accounts fill it."""
    few, enough = FailureWindow(size=200, ratio=1.0), FailureWindow(size=200, ratio=1.0)
    told(few, *[(str(n % 19), LcmRejected) for n in range(1000)])
    assert not few.tripped
    assert told(enough, *[(str(n % 20), LcmRejected) for n in range(200)]) == [False] * 199 + [True]


@given(st.lists(st.tuples(st.sampled_from([str(n) for n in range(30)]), st.booleans()), max_size=200))
def test_the_window_is_the_latest_jobs_of_each_account(ends: list[tuple[str, bool]]) -> None:
    """It holds the last `size` of what is left once each account keeps its latest jobs alone."""
    window = FailureWindow(size=40, ratio=2.0)
    kept: list[tuple[str, bool]] = []
    for account, failed in ends:
        kept.append((account, failed))
        of_one = [at for at, (other, _) in enumerate(kept) if other == account]
        if len(of_one) > 2:
            del kept[of_one[0]]
        kept = kept[-40:]
        window.job_ended(account, failed=failed)
        assert repr(window).endswith(f"{sum(f for _, f in kept)} of the last {len(kept)} failed>")


def test_good_jobs_keep_it_from_tripping() -> None:
    """Two good ones in ten are enough at a ratio of 0.9."""
    window = FailureWindow(size=10, ratio=0.9)
    told(window, *[(str(n), None if n % 5 == 0 else LcmRejected) for n in range(100)])
    assert not window.tripped


def test_a_good_job_ends_it() -> None:
    """While it is tripped failures change nothing; the first success resets it."""
    window = FailureWindow(size=3, ratio=1.0)
    told(window, *[(str(n), InternalError) for n in range(3)])
    assert told(window, ("x", InternalError), ("y", None)) == [False, True]
    assert not window.tripped
    assert repr(window) == "<FailureWindow watching, 0 of the last 1 failed>"


def test_ratio_0_is_off() -> None:
    """It never trips."""
    window = FailureWindow(size=2, ratio=0.0)
    told(window, *[(str(n), InternalError) for n in range(10)])
    assert not window.tripped


def test_the_text_of_accounts_is_not_kept() -> None:
    """A window holds under 400 bytes of each job, also where its account takes a kibibyte."""
    tracemalloc.start()
    try:
        window = FailureWindow(size=200, ratio=0.9)
        for number in range(1000):
            window.job_ended("\N{GRINNING FACE}" * 250 + f"{number:06}", failed=True)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert window.tripped
    assert held < 200 * 400


SIZE = 20
PAUSE = 8
BAD, OTHER = Producer("dialer"), Producer("survey")


class Guarded:
    """A guard with a window of 20 jobs, its intake, and a queue of `depth` jobs.

    `done` is all that the guard does to the intake. Its time passes only by `wake`.
    """

    def __init__(self, depth: int = 0) -> None:
        self.done: list[str] = []
        self.log = RecordingLog()
        self.time = 0.0
        self.letters = 0
        self.depth = depth
        self._accounts = count()
        self._sleep_ends: asyncio.Future[None] | None = None
        clock = Clock(
            sleep=self._sleep, jitter=lambda low, high: (low + high) / 2, monotonic=lambda: self.time
        )
        self.guard = Guard(SIZE, 0.9, self, self._look, self.log, pause=PAUSE, clock=clock)

    def pause(self, reason: PauseReason) -> None:
        self.done.append(f"pause: {reason.value}")

    def resume(self, reason: PauseReason) -> None:
        if self.done and self.done[-1] != f"resume: {reason.value}":
            self.done.append(f"resume: {reason.value}")

    async def take_one(self, within: float) -> bool:
        raise NotImplementedError

    async def _look(self) -> int:
        return self.depth

    async def _sleep(self, seconds: float) -> None:
        self.done.append(f"sleep {seconds:g} s")
        self._sleep_ends = asyncio.get_running_loop().create_future()
        await self._sleep_ends
        self.time += seconds

    async def wake(self) -> None:
        """End the guard's sleep."""
        assert self._sleep_ends is not None
        self._sleep_ends.set_result(None)
        await settled()

    async def come(self, producer: Producer, jobs: int, error: type[JobError] | None = LcmRejected) -> int:
        """Have jobs come, one after the other, that end so where they are admitted; return how many were."""
        admitted = [self._job(producer, error) for _ in range(jobs)].count(True)
        await settled()
        return admitted

    async def trip_alone(self) -> int:
        """Have a window of bad jobs fail among so many good ones of another that all together do not trip."""
        admitted = 0
        for _ in range(SIZE):
            admitted += await self.come(BAD, 1)
            await self.come(OTHER, 1, None)
        return admitted

    def _job(self, producer: Producer, error: type[JobError] | None) -> bool:
        if self.guard.admit(producer) is not None:
            return False
        ending = Ending.FAILED if error else Ending.SUCCEEDED
        self.letters += error is not None
        self.guard(
            Disposition(
                ending,
                account=f"{next(self._accounts)}",
                error=error("no") if error else None,
                producer=producer,
            )
        )
        return True


async def test_a_producer_whose_jobs_fail_is_stopped_and_others_are_not() -> None:
    """After a window of failures its jobs are deferred, further at each pass; one in good standing is admitted."""
    guarded = Guarded(depth=1000)
    assert await guarded.trip_alone() == SIZE
    assert await guarded.come(BAD, 100) == 0
    assert await guarded.come(OTHER, 30, None) == 30
    reason = guarded.guard.admit(BAD)
    assert reason is not None
    assert reason.further
    assert guarded.done == []
    [(level, event, fields)] = guarded.log.lines
    assert (level, event, fields["error"], fields["user_id"]) == (
        "error",
        "guard.tripped",
        "lcm_rejected",
        "dialer",
    )
    assert "look for a change at LCM" in fields["remedy"]
    assert guarded.guard.trouble == "1 of 2 producers, by lcm_rejected"
    assert guarded.guard.tripped == 1
    await guarded.guard.stop()


async def test_the_intake_is_paused_when_a_whole_pass_brought_nothing_else() -> None:
    """It pauses once as many jobs as the queue held were seen, rests, and makes the next pass."""
    guarded = Guarded(depth=150)
    await guarded.come(BAD, SIZE)
    await guarded.come(BAD, 149)
    assert guarded.done == []
    await guarded.come(BAD, 1)
    assert guarded.done == ["pause: guard", "sleep 6 s"]
    await guarded.wake()
    await guarded.come(BAD, 150)
    assert guarded.done[2:] == ["resume: guard", "pause: guard", "sleep 6 s"]
    assert guarded.log.events == ["guard.tripped"]
    await guarded.guard.stop()


async def test_a_long_pass_is_followed_by_a_long_rest() -> None:
    """A pass takes a fifth of the time, but after ten minutes there is another in any case."""
    guarded = Guarded(depth=150)
    for took, rest in ((10.0, 40), (1000.0, 600)):
        await guarded.come(BAD, SIZE)
        guarded.time += took
        await guarded.come(BAD, 150)
        assert guarded.done[-1] == f"sleep {rest} s"
        await guarded.wake()
    await guarded.guard.stop()


async def test_the_intake_goes_on_while_others_jobs_come() -> None:
    """A pass that brings another producer's jobs, though few, pauses nothing, and neither does the next."""
    guarded = Guarded(depth=1000)
    await guarded.come(OTHER, 3, None)
    await guarded.come(BAD, SIZE)
    for _ in range(3):
        await guarded.come(OTHER, 1, None)
        guarded.time += 2 * PAUSE
        await guarded.come(BAD, 999)
    assert guarded.done == []
    await guarded.guard.stop()


@pytest.mark.parametrize("depth", [0, 1, 99])
async def test_a_short_queue_pauses_nothing_while_others_jobs_come(depth: int) -> None:
    """Pitfall: where jobs are taken as they come, a producer that tripped made everybody's wait for a rest."""
    guarded = Guarded(depth)
    for _ in range(5):
        await guarded.come(OTHER, 1, None)
        await guarded.come(BAD, SIZE)
        guarded.time += PAUSE - 1
    assert guarded.done == []
    await guarded.guard.stop()


async def test_where_nobody_else_has_come_the_first_rest_is_at_once() -> None:
    """With the queue empty there is nothing to go through, and the worker says that it is not ready."""
    guarded = Guarded(depth=0)
    await guarded.come(BAD, SIZE)
    assert guarded.done[0] == "pause: guard"
    await guarded.guard.stop()


async def test_the_intake_goes_on_while_others_jobs_come_now_and_then() -> None:
    """Several passes that brought none pause nothing, until none has come for as long as the guard pauses its tries."""
    guarded = Guarded(depth=100)
    for _ in range(3):
        await guarded.come(OTHER, 1, None)
        for _ in range(PAUSE - 1):
            await guarded.come(BAD, 100)
            guarded.time += 1
    assert guarded.done == []
    guarded.time += 2
    await guarded.come(BAD, 100)
    assert guarded.done == ["pause: guard", "sleep 12 s"]
    await guarded.guard.stop()


async def test_a_queue_that_has_grown_is_gone_through_before_a_rest() -> None:
    """Beside others it is looked at again after a hundred; a rest comes after as many deliveries as it held then."""
    guarded = Guarded(depth=0)
    await guarded.come(OTHER, 1, None)
    guarded.time += 1
    await guarded.come(BAD, SIZE)
    guarded.depth = 1000
    await guarded.come(BAD, 100)
    guarded.time += 2 * PAUSE
    await guarded.come(BAD, 999)
    assert guarded.done == []
    await guarded.come(BAD, 1)
    assert guarded.done[0] == "pause: guard"
    await guarded.guard.stop()


async def test_a_few_jobs_are_tried_at_a_time() -> None:
    """While they fail as before, three are tried after each pause between tries."""
    guarded = Guarded()
    await guarded.trip_alone()
    for _ in range(3):
        assert await guarded.come(BAD, 10) == 0
        guarded.time += PAUSE
        assert await guarded.come(BAD, 10) == 3
    await guarded.guard.stop()


async def test_a_success_ends_it() -> None:
    """The first try that succeeds lets all its jobs in, and the window begins anew."""
    guarded = Guarded()
    await guarded.trip_alone()
    guarded.time += PAUSE
    assert await guarded.come(BAD, 30, None) == 30
    assert guarded.log.events == ["guard.tripped", "guard.recovered"]
    assert guarded.guard.trouble == ""
    await guarded.trip_alone()
    assert await guarded.come(BAD, 100) == 0
    await guarded.guard.stop()


async def test_a_success_during_a_rest_resumes_the_intake() -> None:
    """A job that was in hand when the intake was paused may be the one that succeeds."""
    guarded = Guarded(depth=100)
    await guarded.come(BAD, SIZE)
    await guarded.come(BAD, 100)
    assert guarded.done == ["pause: guard", "sleep 6 s"]
    guarded.guard(Disposition(Ending.SUCCEEDED, account="good", producer=BAD))
    await settled()
    assert guarded.done[2:] == ["resume: guard"]
    assert await guarded.come(BAD, 5, None) == 5


async def test_a_bad_deploy_for_many_producers_costs_few_jobs() -> None:
    """Where 200 producers fail together, a window of jobs in all and one for each that comes later are lost to it."""
    guarded = Guarded(depth=20_000)
    routes = [Producer("dialer", route=f"{n}") for n in range(200)]
    for _ in range(100):
        for route in routes:
            await guarded.come(route, 1)
    assert guarded.letters <= SIZE + len(routes)
    guarded.time += PAUSE
    for route in routes:
        await guarded.come(route, 1)
    assert guarded.letters <= SIZE + len(routes) + 12
    assert guarded.log.events == ["guard.tripped"]
    await guarded.guard.stop()


async def test_who_comes_during_a_bad_deploy_is_tried_at_once() -> None:
    """A producer that nothing is known of has a first try, and its success frees it alone; the others try again."""
    guarded = Guarded(depth=1000)
    routes = [Producer("dialer", route=f"{n}") for n in range(SIZE)]
    for route in routes:
        await guarded.come(route, 1)
    assert [await guarded.come(route, 5) for route in routes] == [0] * SIZE
    assert await guarded.come(OTHER, 10, None) == 10
    assert [await guarded.come(route, 5) for route in routes] == [1] * SIZE
    assert await guarded.come(OTHER, 10, None) == 10
    await guarded.guard.stop()


async def test_after_a_bad_deploy_each_producer_is_freed_by_its_own_success() -> None:
    """The first success gives every producer that tripped with it a try of its own at once."""
    guarded = Guarded(depth=1000)
    routes = [Producer("dialer", route=f"{n}") for n in range(SIZE)]
    for route in routes:
        await guarded.come(route, 1)
    guarded.time += PAUSE
    assert [await guarded.come(route, 5, None) for route in routes] == [5] * SIZE
    await guarded.guard.stop()


async def test_successes_in_good_standing_free_nobody_else() -> None:
    """While many have tripped together, a good producer's successes give none of them another try."""
    guarded = Guarded(depth=1000)
    await guarded.come(OTHER, 1, None)
    routes = [Producer("dialer", route=f"{n}") for n in range(2 * SIZE)]
    for route in routes:
        await guarded.come(route, 1)
    letters = guarded.letters
    await guarded.come(OTHER, 50, None)
    assert [await guarded.come(route, 1) for route in routes] == [0] * len(routes)
    assert guarded.letters == letters
    await guarded.guard.stop()


async def test_many_producers_cost_bounded_memory() -> None:
    """Those that sent nothing for longest are forgotten."""
    guarded = Guarded()
    for n in range(3000):
        await guarded.come(Producer(route=f"{n}"), 1, None)
    assert len(guarded.guard._producers) == 1000


async def test_who_had_a_success_is_not_forgotten_for_the_routes_of_who_had_none() -> None:
    """A user may take another route with each job: where all together trip, that costs nobody else a good name."""
    guarded = Guarded(depth=1000)
    assert await guarded.come(OTHER, 1, None) == 1
    for n in range(1500):
        await guarded.come(Producer("user", route=f"{n}"), 1)
    assert guarded.guard.tripped
    assert await guarded.come(OTHER, 30, None) == 30
    await guarded.guard.stop()


@pytest.mark.parametrize("ending", [Ending.DEFERRED, Ending.STALE, Ending.CRASHED])
async def test_a_delivery_without_success_or_error_says_nothing(ending: Ending) -> None:
    """Deferred in an outage, or gone with its channel: that says nothing of its producer's jobs."""
    guarded = Guarded()
    for number in range(2 * SIZE):
        guarded.guard(Disposition(ending, account=str(number), producer=BAD))
    assert await guarded.come(BAD, 1) == 1


@pytest.mark.parametrize("ending", [Ending.RETRY_LATER, Ending.DEFERRED])
async def test_a_job_that_failed_and_comes_back_counts(ending: Ending) -> None:
    """Pitfall: accounts that LCM never answers hold sessions for minutes before the first of their jobs has ended."""
    guarded = Guarded()
    for number in range(SIZE):
        guarded.guard(Disposition(ending, account=str(number), error=InternalError("broken"), producer=BAD))
    assert await guarded.come(BAD, 1) == 0
    await guarded.guard.stop()


@pytest.mark.parametrize(
    "error", [InternalError, *(error for error in ERRORS.values() if issubclass(error, LookupFailed))]
)
async def test_what_fails_at_lcm_or_by_a_defect_counts(error: type[JobError]) -> None:
    """Refused, not answered, or not in a way that can be read."""
    guarded = Guarded()
    await guarded.come(BAD, SIZE, error)
    assert await guarded.come(BAD, 1) == 0
    await guarded.guard.stop()


@pytest.mark.parametrize("error", [Expired, Poison, ResultTooLarge])
async def test_what_lcm_was_not_asked_for_in_vain_makes_up_for_nothing(error: type[JobError]) -> None:
    """Pitfall: by jobs that are too late when they come, a producer kept the others of its jobs from counting."""
    guarded = Guarded()
    assert await guarded.come(BAD, 2 * SIZE, error) == 2 * SIZE
    for _ in range(SIZE):
        assert await guarded.come(BAD, 1, error) == await guarded.come(BAD, 1) == 1
    assert await guarded.come(BAD, 1) == 0
    await guarded.guard.stop()


async def test_a_job_whose_deadline_came_before_its_next_try_counts_by_what_failed() -> None:
    """Else deadlines that are shorter than LCM's silence would keep a producer's jobs from counting."""
    guarded = Guarded()
    for number in range(SIZE):
        error = Expired("past its deadline")
        guarded.guard(
            Disposition(Ending.FAILED, account=f"{number}", error=error, failed_by=ReplyTimeout, producer=BAD)
        )
    assert await guarded.come(BAD, 1) == 0
    await guarded.guard.stop()


async def test_a_known_user_is_one_producer_whatever_it_calls_its_application() -> None:
    """The broker has verified the one, and nobody the other."""
    guarded = Guarded()
    for number in range(SIZE):
        await guarded.come(Producer("dialer", f"app-{number}"), 1)
        await guarded.come(OTHER, 1, None)
    assert await guarded.come(Producer("dialer", "another"), 1) == 0
    assert [line["user_id"] for line in guarded.log.of("guard.tripped")] == ["dialer"]
    await guarded.guard.stop()


async def test_of_many_that_nothing_is_known_of_a_few_are_tried_at_once() -> None:
    """Whoever calls itself something else with every job has no more tries by that."""
    guarded = Guarded(depth=1000)
    for number in range(SIZE):
        await guarded.come(Producer(app_id=f"{number}"), 1)
    newcomers = [Producer(app_id=f"new-{number}") for number in range(100)]
    assert sum([await guarded.come(newcomer, 1) for newcomer in newcomers]) == 12
    await guarded.guard.stop()


async def test_after_a_stop_nothing_is_resumed() -> None:
    """A guard that is stopped in its rest never wakes; one that has not tripped has nothing to stop."""
    guarded = Guarded(depth=100)
    await guarded.guard.stop()
    await guarded.come(BAD, SIZE)
    await guarded.come(BAD, 100)
    await guarded.guard.stop()
    assert guarded.done == ["pause: guard", "sleep 6 s"]
