"""The places of the prefetch that stuck lookups may keep, so that jobs for one silent account don't hold them all."""

from __future__ import annotations

import math
from collections import Counter
from datetime import timedelta
from types import TracebackType
from typing import Self

from worker.common.clock import Clock
from worker.contract.errors import GaveWay
from worker.contract.lookup import LookupRequest

STUCK_AFTER = 1.0
"""Seconds after which a lookup that shares an exchange, or repeats one, counts as stuck."""


class Places:
    """Counts the stuck lookups: those for one account keep an eighth of the places at most, all together a half.

    Args:
        prefetch: the number of places; `math.inf` where nobody waits for one.
        delay: seconds for which a lookup that gives way is away.
        clock: the time.
    """

    def __init__(self, prefetch: float, delay: float, clock: Clock) -> None:
        self._of_one = max(1, prefetch / 8)
        self._of_all = max(1, prefetch / 2)
        self._delay = timedelta(seconds=delay)
        self._now = clock.now
        self._stuck: Counter[str] = Counter()

    @classmethod
    def unlimited(cls, clock: Clock) -> Self:
        """Return places of which there are always enough."""
        return cls(math.inf, 0.0, clock)

    def __repr__(self) -> str:
        return f"<Places, {self._stuck.total()} kept by stuck lookups for {len(self._stuck)} accounts>"

    def keep(self, request: LookupRequest) -> bool:
        """Count a lookup as stuck; return whether it is counted, and so has to be freed.

        One whose deadline its being away would pass keeps its place uncounted.

        Raises:
            GaveWay: too many are stuck already.
        """
        if request.deadline is not None and self._now() + self._delay >= request.deadline:
            return False
        if self._stuck[request.account] + 1 > self._of_one or self._stuck.total() + 1 > self._of_all:
            raise GaveWay("LCM answers slowly, and other jobs wait for the places of those that wait for it")
        self._stuck[request.account] += 1
        return True

    def free(self, request: LookupRequest) -> None:
        """Count a lookup no more."""
        self._stuck[request.account] -= 1
        if not self._stuck[request.account]:
            del self._stuck[request.account]


class Place:
    """One lookup's place; what it keeps is freed with the context."""

    def __init__(self, places: Places, request: LookupRequest) -> None:
        self.request = request
        self._places = places
        self._counted = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        if self._counted:
            self._places.free(self.request)

    def keep(self) -> None:
        """Keep the place although stuck; raises as Places.keep."""
        self._counted = self._counted or self._places.keep(self.request)
