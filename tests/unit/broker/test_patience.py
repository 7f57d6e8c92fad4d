"""How long a confirm is waited for: the time in which the broker takes no messages doesn't count."""

from __future__ import annotations

import math
import random
from typing import cast

import pytest

from tests.simulation.loop import VirtualLoop
from worker.broker.link import Link
from worker.broker.publisher import _Patience


class BlockedLink:
    """Blocked for some spans of time, which it notices every half second, as a real link does."""

    def __init__(self, loop: VirtualLoop, *spans: tuple[float, float]) -> None:
        self.generation = 3
        self.dropped: list[tuple[float, int]] = []
        self.last_blocked = -math.inf
        self._loop = loop
        self._spans = spans
        self._look()

    @property
    def blocked(self) -> bool:
        return any(start <= self._loop.time() < end for start, end in self._spans)

    def drop(self, _reason: str, generation: int) -> None:
        self.dropped.append((self._loop.time(), generation))

    def _look(self) -> None:
        if self.blocked:
            self.last_blocked = self._loop.time()
        self._loop.call_later(0.5, self._look)


@pytest.mark.parametrize(
    ("spans", "dropped_at"),
    [
        ([], 10),
        ([(0, 9.9)], 19.5),
        ([(2, 4)], 13.5),
        ([(5, 35.2)], 45),
        ([(1, 2), (8, 9)], 18.5),
    ],
    ids=["never", "until just before", "in between", "several times as long", "twice"],
)
def test_the_time_of_an_alarm_does_not_count(spans: list[tuple[float, float]], dropped_at: float) -> None:
    """The connection is given up only after all of `publish_timeout` since the broker was last seen to be blocked."""
    complaints: list[str] = []
    loop = VirtualLoop(random.Random(0), complaints.append)  # noqa: S311 - no secret
    link = BlockedLink(loop, *spans)
    loop.call_soon(lambda: _Patience(cast(Link, link), 10))
    loop.advance(100)
    loop.close()
    assert (link.dropped, complaints) == ([(dropped_at, 3)], [])


def test_a_confirm_ends_the_waiting() -> None:
    """Once ended, it drops nothing, blocked or not."""
    loop = VirtualLoop(random.Random(0), list[str]().append)  # noqa: S311 - no secret
    link = BlockedLink(loop, (0, 12))

    def begin() -> None:
        patience = _Patience(cast(Link, link), 10)
        loop.call_later(15, patience.end)

    loop.call_soon(begin)
    loop.advance(100)
    loop.close()
    assert link.dropped == []
