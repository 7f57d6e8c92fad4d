"""A lookup that ends as it is told, and counts on its request as an exchange does."""

from __future__ import annotations

from tests.support.lcm import START, SetClock
from worker.contract.errors import LookupFailed
from worker.contract.lookup import ExchangeTiming, Lookup, LookupRequest, LookupResult
from worker.contract.outcomes import OutcomeList

ANSWER = LookupResult(OutcomeList([("7", "Busy")]), START, START, ExchangeTiming(1, 1, 0.5))


def failing(
    *errors: Exception, clock: SetClock | None = None, takes: float = 0.0
) -> tuple[Lookup, list[float]]:
    """Give a lookup that raises these errors, then answers; and the times at which it was called."""
    left, calls = list(errors), list[float]()

    async def ask(request: LookupRequest) -> LookupResult:
        now = clock.seconds if clock else 0.0
        calls.append(now)
        request.exchanges += 1
        request.spent += takes
        if clock:
            clock.seconds += takes
        if left:
            error = left.pop(0)
            if isinstance(error, LookupFailed):
                request.note_failure(error)
            raise error
        return ANSWER

    return ask, calls
