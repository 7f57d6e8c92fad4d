"""When the next session may be opened. Pure: the random number comes in."""

from __future__ import annotations

import math

from worker.common.backoff import Jitter, backoff
from worker.contract.errors import SessionNotOpened


class ReconnectPace:
    """The backoff before a session is opened, from how the last ones ended.

    An opened session proves nothing: a peer that accepts and closes would get thousands of connections a second. So
    only a good exchange resets the backoff. Sessions that fail together count once: read `attempt` when an opening
    starts, and pass it to `failed`.
    """

    def __init__(self, first: float, longest: float) -> None:
        self._first = first
        self._longest = longest
        self._failures = 0
        self._burdens = 0
        self._refused = False
        self._pause = 0.0

    @property
    def failing(self) -> bool:
        return self._failures > 0

    @property
    def attempt(self) -> int:
        return self._failures

    def delay(self, jitter: Jitter) -> float:
        """Return the seconds to wait now: none while all is well, else between half and all of a doubling.

        That comes on top of a pause for which LCM asked, so that workers don't come back together.
        """
        if not self._failures:
            return 0.0
        # After a 401 or with a wrong certificate, fast retries can get the account locked out.
        doublings = math.inf if self._refused else max(0, self._burdens - 1)
        return self._pause + backoff(self._first, self._longest, doublings, jitter)

    def not_opened(self, attempt: int, error: SessionNotOpened) -> bool:
        """Take note of an opening that failed; return as `failed` does."""
        return self.failed(
            attempt, refused=error.refused, pause=error.pause, nobody_listens=error.nobody_listens
        )

    def failed(
        self, attempt: int, *, refused: bool = False, pause: float = 0.0, nobody_listens: bool = False
    ) -> bool:
        """Take note of a failure; return whether it counts, as the first of those that fail together does.

        Where nobody listens, the delay starts anew.
        """
        counts = attempt == self._failures
        self._failures += counts
        self._refused = refused
        if counts:
            # A closed port is no burden to try, and whoever comes back is to be found at once.
            self._burdens = 0 if nobody_listens else self._burdens + 1
        self._pause = pause if counts else max(pause, self._pause)
        return counts

    def good_exchange(self) -> None:
        self._failures = self._burdens = 0
        self._refused = False
        self._pause = 0.0


class Room:
    """How many sessions LCM has room for, as far as its refusals tell, and when one more is tried.

    Up to `places` sessions are opened as they are needed, since as many were ours. Beyond, one at a time is tried after
    a backoff, which ends once LCM has answered on such a session: that others answer says nothing about room.
    """

    def __init__(self, size: int, first: float, longest: float) -> None:
        self.places = self._size = size
        self.refusals = 0
        self._pace = ReconnectPace(first, longest)

    @property
    def attempt(self) -> int:
        """To be read when an opening starts, and passed to `refused`."""
        return self._pace.attempt

    def delay(self, jitter: Jitter) -> float:
        """Return the seconds to wait before one more is tried."""
        return self._pace.delay(jitter)

    def refused(self, attempt: int, held: int, error: SessionNotOpened) -> bool:
        """Take note of an opening that failed while so many sessions were held; return as `ReconnectPace.failed`."""
        self.places = held
        counts = self._pace.not_opened(attempt, error)
        self.refusals += counts
        return counts

    def answered(self, held: int) -> None:
        """Take note that LCM has answered on a session beyond `places`: so many are ours now."""
        self._pace.good_exchange()
        self.places = max(self.places, held)
        if self.places >= self._size:
            self.refusals = 0

    def not_full(self) -> None:
        """Begin anew, with room for all: the refusals were for other reasons."""
        self.places = self._size
        self._pace.good_exchange()

    def forget(self) -> None:
        """Begin anew, with room for all and no refusals: LCM went away, and what comes back may be another."""
        self.not_full()
        self.refusals = 0
