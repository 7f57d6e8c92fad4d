"""Counts of deliveries and marks of troubles over time, in a limited number of time slots. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Generic, Self, TypeVar

from worker.cli.top.histogram import Histogram
from worker.cli.top.reading import Event

OUTAGE, GUARD, BROKER = 1, 2, 4
"""Flags to mark slots with: LCM has an outage, the guard pauses the worker, the broker is lost or blocked."""


@dataclass(slots=True)
class Slot:
    """The number of deliveries that ended in a time slot and of those that failed, and the marks of the slot."""

    ended: int = 0
    failed: int = 0
    marks: int = 0

    def count(self, event: Event, result: str, code: str) -> None:  # noqa: ARG002 - a detailed slot uses all
        """Count the end of a delivery, which failed for now or for good where there is an error `code`."""
        self.ended += 1
        self.failed += result == "failed"

    def sessions_changed(self, opened: int, waiting: int) -> None:
        """Take note by how much the sessions that are open, and those that wait for one, have changed."""

    def merge(self, other: Self) -> None:
        self.ended += other.ended
        self.failed += other.failed
        self.marks |= other.marks


@dataclass(slots=True)
class DetailedSlot(Slot):
    """What a report plots of a time slot, beside that.

    Of sessions the changes are kept, since those of several workers add up in whatever order their logs are read.
    """

    results: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    lcm: Histogram = field(default_factory=Histogram)
    duration: Histogram = field(default_factory=Histogram)
    opened: int = 0
    waiting: int = 0

    def count(self, event: Event, result: str, code: str) -> None:
        Slot.count(self, event, result, code)
        self.results[result] += 1
        if code:
            self.errors[code] += 1
        if event.lcm_ms is not None:
            self.lcm.add(event.lcm_ms)
        if event.duration_ms is not None:
            self.duration.add(event.duration_ms)

    def sessions_changed(self, opened: int, waiting: int) -> None:
        self.opened += opened
        self.waiting += waiting

    def merge(self, other: Self) -> None:
        Slot.merge(self, other)
        self.results += other.results
        self.errors += other.errors
        self.lcm.merge(other.lcm)
        self.duration.merge(other.duration)
        self.opened += other.opened
        self.waiting += other.waiting


S = TypeVar("S", bound=Slot)


@dataclass(slots=True, frozen=True)
class Stretch(Generic[S]):
    """Consecutive slots: their start (seconds since 1970), and the length of each in seconds."""

    start: int
    seconds: int
    slots: list[S]


class Timeline(Generic[S]):
    """At most `limit` slots of one second each at first.

    When the time from the first to the last exceeds them, each two slots are merged into one (`whole`), or the oldest
    are dropped.
    """

    def __init__(self, limit: int, *, whole: bool, slot: type[S]) -> None:
        self._limit = limit
        self._whole = whole
        self._new = slot
        # Slots are numbered from 1970 on, so that merging halves the numbers.
        self._slots: dict[int, S] = {}
        self._shift = 0
        self._first = self._last = 0

    def at(self, second: int) -> S:
        """Return the slot of a second, created where needed; for a time that was dropped, a slot that is not kept."""
        return self._slots.get(second >> self._shift) or self._create(second)

    def mark(self, since: int, until: int, marks: int) -> None:
        """Mark every slot from `since` to `until`, both included."""
        self.at(until)
        if self._whole:
            self.at(since)
        begin = max(since >> self._shift, self._last - self._limit + 1)
        for index in range(begin, (until >> self._shift) + 1):
            self.at(index << self._shift).marks |= marks

    def stretch(self, width: int, until: int = 0) -> Stretch[S]:
        """Return at most `width` slots: of a `whole` timeline all, merged until they fit, else the newest.

        They go on to the second `until`, where nothing came as late as that.
        """
        if not self._slots:
            return Stretch(0, 1, [])
        newest = max(self._last, until >> self._shift)
        many = 1
        while self._whole and newest // many - self._first // many >= width:
            many += 1
        merged = self._merged(many) if many > 1 else self._slots
        last = newest // many
        first = max(self._first // many, last - width + 1)
        seconds = many << self._shift
        return Stretch(
            first * seconds, seconds, [merged.get(index) or self._new() for index in range(first, last + 1)]
        )

    def _create(self, second: int) -> S:
        index = second >> self._shift
        if not self._slots:
            self._first = self._last = index
        elif self._whole:
            self._first, self._last = min(self._first, index), max(self._last, index)
            while self._last - self._first >= self._limit:
                self._merge_pairs()
            index = second >> self._shift
        elif index <= self._last - self._limit:
            return self._new()
        else:
            self._drop_before(max(self._last, index) - self._limit + 1)
            self._first, self._last = min(self._first, index), max(self._last, index)
        return self._slots.setdefault(index, self._new())

    def _merge_pairs(self) -> None:
        self._slots = self._merged(2)
        self._shift += 1
        self._first >>= 1
        self._last >>= 1

    def _drop_before(self, index: int) -> None:
        if index > self._last:
            self._slots.clear()
        else:
            for old in range(self._first, index):
                self._slots.pop(old, None)
        self._first = max(self._first, index)

    def _merged(self, many: int) -> dict[int, S]:
        merged: dict[int, S] = {}
        for index, slot in self._slots.items():
            merged.setdefault(index // many, self._new()).merge(slot)
        return merged
