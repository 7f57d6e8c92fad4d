"""An exchange is repeated after a transient error, within its attempts, its budget and its deadline."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from tests.support.lcm import START, SetClock
from tests.support.lookup import ANSWER, failing
from tests.support.waiting import outcome_of
from worker.common.clock import SYSTEM_CLOCK
from worker.contract.errors import (
    ConnectionLost,
    Deferred,
    Expired,
    LcmError,
    LcmRejected,
    LookupFailed,
    MalformedReply,
    ReplyTimeout,
    ReplyTooLarge,
    StaleDelivery,
)
from worker.contract.lookup import LookupRequest
from worker.lcm.places import STUCK_AFTER, Places
from worker.lcm.retry import Retry
from worker.settings import RetrySettings

PLACES = Places.unlimited(SYSTEM_CLOCK)


def retry_settings(**settings: Any) -> RetrySettings:
    """Return the retry section."""
    return RetrySettings.model_validate(settings)


TRANSIENT: list[type[LookupFailed]] = [LcmError, ReplyTimeout, ConnectionLost, MalformedReply]


@pytest.mark.parametrize("error", TRANSIENT)
async def test_transient_errors_are_retried(error: type[LookupFailed]) -> None:
    """Within its attempts an exchange is repeated after a pause, and then succeeds."""
    clock = SetClock()
    ask, calls = failing(error("1"), error("2"), clock=clock)
    request = LookupRequest("a")
    assert await Retry(ask, retry_settings(attempts=3), PLACES, clock.clock)(request) == ANSWER
    assert (len(calls), len(clock.sleeps), request.exchanges) == (3, 2, 3)
    assert request.last_error == f"{error.code}: 2"


@pytest.mark.parametrize(
    "error", [LcmRejected("no"), ReplyTooLarge("no"), Expired("no"), StaleDelivery("no"), RuntimeError("no")]
)
async def test_everything_else_is_raised_at_once(error: Exception) -> None:
    """What is permanent, or says nothing about LCM, is not repeated, at first or after a transient error."""
    for before in ([], [ReplyTimeout("1")]):
        ask, calls = failing(*before, error)
        with pytest.raises(type(error), match="no"):
            await Retry(ask, retry_settings(attempts=5), PLACES, SetClock().clock)(LookupRequest("a"))
        assert len(calls) == len(before) + 1


async def test_a_cancelled_exchange_is_not_repeated() -> None:
    """Pitfall `tenacity retries a cancelled task unless the exceptions to retry are listed`: these are listed."""
    for before in ([], [ReplyTimeout("1")]):
        ask, calls = failing(*before, cast(Exception, asyncio.CancelledError()))
        retry = Retry(ask, retry_settings(attempts=5), PLACES, SetClock().clock)
        assert isinstance(await outcome_of(retry(LookupRequest("a"))), asyncio.CancelledError)
        assert len(calls) == len(before) + 1


@pytest.mark.parametrize("attempts", [1, 2, 4])
async def test_attempts_are_limited(attempts: int) -> None:
    """The last error is raised, as it was, once the attempts are used up."""
    errors = [ReplyTimeout(str(n)) for n in range(9)]
    ask, calls = failing(*errors)
    with pytest.raises(ReplyTimeout) as raised:
        await Retry(ask, retry_settings(attempts=attempts), PLACES, SetClock().clock)(LookupRequest("a"))
    assert raised.value is errors[attempts - 1]
    assert len(calls) == attempts


async def test_pauses_are_drawn_at_random_below_a_doubling() -> None:
    """Pitfall `wait_exponential_jitter saturates to one value for everyone`: at the ceiling pauses still differ."""
    clock = SetClock()
    ask, _ = failing(*(ReplyTimeout("x") for _ in range(99)))
    with pytest.raises(ReplyTimeout):
        await Retry(
            ask, retry_settings(attempts=40, first_delay=1, max_delay=8, budget=1500), PLACES, clock.clock
        )(LookupRequest("a"))
    ceilings = [min(8, 2**n) for n in range(39)]
    assert all(0 <= pause <= ceiling for pause, ceiling in zip(clock.sleeps, ceilings, strict=True))
    assert len(set(clock.sleeps[4:])) > 30


async def test_the_budget_ends_the_retries_before_a_pause() -> None:
    """Pitfall `stop_after_delay(1) ran 2.1 s`: exchanges and pauses together stay within the budget."""
    clock = SetClock()
    ask, calls = failing(*(ReplyTimeout("x") for _ in range(99)), clock=clock, takes=3)
    request = LookupRequest("a")
    with pytest.raises(ReplyTimeout):
        await Retry(
            ask, retry_settings(attempts=99, first_delay=0, max_delay=0, budget=10), PLACES, clock.clock
        )(request)
    assert calls == [0, 3, 6, 9]
    assert request.spent == 12


async def test_no_pause_passes_the_deadline() -> None:
    """A job whose deadline would pass in the pause ends at once, with the last error in its text."""
    clock = SetClock()
    ask, calls = failing(ReplyTimeout("slow"))
    request = LookupRequest("a", deadline=START)
    with pytest.raises(Expired) as expired:
        await Retry(ask, retry_settings(), PLACES, clock.clock)(request)
    assert expired.value.message.endswith("last error: timeout: slow")
    assert (len(calls), clock.sleeps) == (1, [])


async def test_a_repeat_that_has_taken_long_gives_way() -> None:
    """Over a second in, a lookup that finds the places for stuck ones taken is deferred before its next attempt."""
    clock = SetClock()
    places = Places(8, 5, clock.clock)
    assert places.keep(LookupRequest("a"))
    ask, calls = failing(ReplyTimeout("1"), ReplyTimeout("2"), clock=clock)
    request = LookupRequest("a")
    request.spent = STUCK_AFTER
    with pytest.raises(Deferred, match="answers slowly"):
        await Retry(ask, retry_settings(), places, clock.clock)(request)
    assert len(calls) == 1
    assert request.last_error == "timeout: 1"


async def test_a_repeat_keeps_its_place_where_there_are_enough() -> None:
    """It counts as stuck while it repeats, however often, and no longer."""
    clock = SetClock()
    places = Places(8, 5, clock.clock)
    ask, _ = failing(ReplyTimeout("1"), ReplyTimeout("2"), clock=clock)
    request = LookupRequest("a")
    request.spent = STUCK_AFTER
    await Retry(ask, retry_settings(), places, clock.clock)(request)
    assert repr(places) == "<Places, 0 kept by stuck lookups for 0 accounts>"


async def test_a_quick_repeat_is_not_limited() -> None:
    """An error that came at once keeps nobody waiting."""
    clock = SetClock()
    places = Places(8, 5, clock.clock)
    assert places.keep(LookupRequest("a"))
    ask, calls = failing(ReplyTimeout("1"), clock=clock)
    await Retry(ask, retry_settings(), places, clock.clock)(LookupRequest("a"))
    assert len(calls) == 2
