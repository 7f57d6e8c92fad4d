"""The time line: whole, it coarsens; recent, it forgets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.cli.top.timeline import BROKER, OUTAGE, Slot, Timeline

MORNING = 1_769_860_800


@given(st.lists(st.integers(0, 10_000_000), min_size=1), st.integers(1, 200))
def test_a_whole_time_line_loses_nothing(seconds: list[int], width: int) -> None:
    """In whatever order and over whatever span deliveries end, all are in the stretch, which fits the width."""
    timeline = Timeline(64, whole=True, slot=Slot)
    for second in seconds:
        timeline.at(MORNING + second).ended += 1
    stretch = timeline.stretch(width)
    assert sum(slot.ended for slot in stretch.slots) == len(seconds)
    assert 1 <= len(stretch.slots) <= min(width, 64)
    assert stretch.start <= MORNING + min(seconds)
    assert stretch.start + len(stretch.slots) * stretch.seconds > MORNING + max(seconds)


@given(st.lists(st.integers(0, 500), min_size=1))
def test_a_recent_time_line_keeps_the_newest_seconds(seconds: list[int]) -> None:
    """It holds exactly the deliveries of its last seconds, one slot each, if they come in order."""
    timeline = Timeline(60, whole=False, slot=Slot)
    for second in sorted(seconds):
        timeline.at(MORNING + second).ended += 1
    stretch = timeline.stretch(60)
    assert stretch.seconds == 1
    assert sum(slot.ended for slot in stretch.slots) == sum(s > max(seconds) - 60 for s in seconds)
    assert len(timeline._slots) <= 60


@pytest.mark.parametrize("whole", [True, False])
def test_a_clock_that_is_far_off_takes_no_time_or_memory(whole: bool) -> None:
    """A line from 1970 among those of today, and one from the year 9999, leave few slots and a view."""
    timeline = Timeline(60, whole=whole, slot=Slot)
    for second in (MORNING, 1, MORNING + 1, 253_402_300_000, MORNING + 2):
        timeline.at(second).ended += 1
        timeline.mark(second, second, OUTAGE)
    assert len(timeline._slots) <= 60
    assert timeline.stretch(20).slots


@pytest.mark.parametrize("whole", [True, False])
def test_marks_fill_the_time_between(whole: bool) -> None:
    """What lasted is marked in every slot from its beginning to its end, over what else is marked there."""
    timeline = Timeline(60, whole=whole, slot=Slot)
    timeline.at(MORNING)
    timeline.mark(MORNING + 2, MORNING + 5, OUTAGE)
    timeline.mark(MORNING + 4, MORNING + 7, BROKER)
    marks = [slot.marks for slot in timeline.stretch(60).slots]
    assert marks == [0, 0, OUTAGE, OUTAGE, OUTAGE | BROKER, OUTAGE | BROKER, BROKER, BROKER]
