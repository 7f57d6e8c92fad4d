"""When the next session may be opened. Pure: the random number comes in."""

from __future__ import annotations

import math

from worker.common.backoff import Jitter, backoff


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
