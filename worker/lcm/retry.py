"""Repeats an exchange after a transient error: the only place that uses tenacity."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    stop_after_attempt,
    wait_exponential,
)
from tenacity.stop import stop_base

from worker.common.backoff import Jitter
from worker.common.clock import Clock
from worker.contract.errors import LookupFailed
from worker.contract.lookup import Lookup, LookupRequest, LookupResult
from worker.lcm.places import STUCK_AFTER, Place, Places
from worker.settings import RetrySettings


class Retry:
    """Repeats an exchange after a transient error, at once but for a jittered pause.

    One that has taken long may have to give way, see Places.
    Tenacity is started only after a first failure, which counts as its first attempt: a good job pays nothing for it.
    """

    def __init__(self, exchange: Lookup, settings: RetrySettings, places: Places, clock: Clock) -> None:
        self._exchange = exchange
        self._settings = settings
        self._places = places
        self._clock = clock

    async def __call__(self, request: LookupRequest) -> LookupResult:
        try:
            return await self._exchange(request)
        except LookupFailed as error:
            if not error.transient:
                raise
            with Place(self._places, request) as place:
                return await self._again(place, error)

    async def _again(self, place: Place, first: LookupFailed) -> LookupResult:
        request, settings = place.request, self._settings
        retrying = AsyncRetrying(
            # Listed, since tenacity would else repeat a cancelled task.
            retry=retry_if_exception(_is_transient),
            stop=stop_after_attempt(settings.attempts) | _BudgetSpent(request, settings.budget),
            wait=_FullJitter(settings, self._clock.jitter),
            sleep=partial(self._pause, place),
            reraise=True,
        )
        failed: list[LookupFailed] = [first]

        async def attempt() -> LookupResult:
            if failed:
                raise failed.pop()
            return await self._exchange(request)

        return await retrying(attempt)

    async def _pause(self, place: Place, seconds: float) -> None:
        request = place.request
        if request.spent >= STUCK_AFTER:
            place.keep()
        later = self._clock.now().timestamp() + seconds
        request.check(datetime.fromtimestamp(later, UTC))
        request.spent += seconds
        await self._clock.sleep(seconds)


class _FullJitter(wait_exponential):
    """Waits between nothing and all of a doubling, as wait_random_exponential does, which draws by itself."""

    def __init__(self, settings: RetrySettings, jitter: Jitter) -> None:
        super().__init__(multiplier=settings.first_delay, max=settings.max_delay)
        self._jitter = jitter

    def __call__(self, retry_state: RetryCallState) -> float:
        return self._jitter(0.0, super().__call__(retry_state))


class _BudgetSpent(stop_base):
    """Stops before a pause that would pass the budget, in which waiting for a session doesn't count."""

    def __init__(self, request: LookupRequest, budget: float) -> None:
        self._request = request
        self._budget = budget

    def __call__(self, retry_state: RetryCallState) -> bool:
        return self._request.spent + retry_state.upcoming_sleep >= self._budget


def _is_transient(error: BaseException) -> bool:
    return isinstance(error, LookupFailed) and error.transient
