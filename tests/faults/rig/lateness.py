"""How late this process hears: on a busy machine its event loop turns late, and hears of much at once."""

from __future__ import annotations

import asyncio
import time

_EVERY = 0.02


class Lateness:
    """Measures while `watch` runs, with the wall clock, by which the simulator records, too."""

    def __init__(self) -> None:
        self._turns: list[tuple[float, float]] = []

    def within(self, begin: float, end: float) -> float:
        """Return by how many seconds the loop was late at most, in a turn that began or ended between two moments.

        The turn in which something is heard may be told a little before it.
        """
        return max(
            (late for at, late in self._turns if at >= begin - _EVERY and at - late <= end), default=0.0
        )

    async def watch(self) -> None:
        """Measure until cancelled."""
        while True:
            due = time.time() + _EVERY
            await asyncio.sleep(_EVERY)
            now = time.time()
            self._turns.append((now, max(0.0, now - due)))
