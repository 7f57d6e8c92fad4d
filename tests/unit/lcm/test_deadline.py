"""A deadline passes when it is due, whatever was set and lifted before, and costs one timer."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from tests.simulation.loop import VirtualLoop
from worker.lcm.deadline import Deadline

Script = list[tuple[float, Callable[["Armed"], None]]]


class Armed(Deadline):
    """A deadline that notes when it has passed."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self.loop = loop
        self.passed: list[float] = []

    def within(self, seconds: float) -> None:
        """Set it."""
        self.set(seconds, lambda: self.passed.append(self.loop.time()))


def passed_at(script: Script) -> list[float]:
    """Return the times at which a deadline passes to which this is done, each at its time."""
    loop = VirtualLoop(random.Random(1), pytest.fail)  # noqa: S311 - no secret
    deadlines: list[Armed] = []

    def begin() -> None:
        deadlines.append(Armed(loop))
        for when, what in script:
            loop.call_at(when, what, deadlines[0])

    loop.call_soon(begin)
    loop.advance(1000)
    loop.close()
    return deadlines[0].passed


@pytest.mark.parametrize(
    ("script", "passes"),
    [
        ([(1, lambda d: d.within(10))], [11]),
        ([(1, lambda d: d.within(10)), (5, lambda d: d.lift())], []),
        ([(1, lambda d: d.within(10)), (5, lambda d: d.within(10))], [15]),
        ([(1, lambda d: d.within(10)), (5, lambda d: d.within(2))], [7]),
        ([(1, lambda d: d.within(10)), (5, lambda d: d.lift()), (8, lambda d: d.within(1))], [9]),
        ([(1, lambda d: d.within(10)), (5, lambda d: d.lift()), (20, lambda d: d.within(10))], [30]),
        ([(1, lambda d: d.within(10)), (5, lambda d: d.stop())], []),
        ([(1, lambda d: d.within(10)), (5, lambda d: d.stop()), (6, lambda d: d.within(3))], [9]),
        ([(1, lambda d: d.within(2)), (5, lambda d: d.within(2))], [3, 7]),
    ],
)
def test_it_passes_when_it_is_due(script: Script, passes: list[float]) -> None:
    """The latest time that was set counts, be it sooner or later than those before; a lifted one never passes."""
    assert passed_at(script) == passes


def test_it_needs_one_timer_for_many() -> None:
    """Set and lifted for each of many exchanges it arms a timer anew only when that has fired."""
    loop = VirtualLoop(random.Random(1), pytest.fail)  # noqa: S311 - no secret
    armed: list[float] = []
    call_at = loop.call_at

    def counted(when: float, *rest: object) -> object:
        armed.append(when)
        return call_at(when, *rest)  # type: ignore[arg-type]

    def begin() -> None:
        deadline = Deadline()
        for moment in range(100):
            call_at(moment, deadline.set, 30.0, pytest.fail)
            call_at(moment + 0.5, deadline.lift)
        loop.call_at = counted  # type: ignore[assignment, method-assign]

    loop.call_soon(begin)
    loop.advance(1000)
    loop.close()
    assert len(armed) == 4
