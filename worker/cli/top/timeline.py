"""What happened when, in a bounded number of slots of time. Pure."""

from __future__ import annotations

from dataclasses import dataclass

OUTAGE, GUARD, BROKER = 1, 2, 4
"""What a slot may be marked with, as flags: LCM is out, the guard pauses, the broker is lost or blocked."""


@dataclass(slots=True)
class Slot:
    """Deliveries that ended in a slot of time, those of them that failed, and the marks of the slot."""

    ended: int = 0
    failed: int = 0
    marks: int = 0

    def merge(self, other: Slot) -> None:
        self.ended += other.ended
        self.failed += other.failed
        self.marks |= other.marks


@dataclass(slots=True, frozen=True)
class Stretch:
    """Slots in a row: from when on (seconds since 1970), and how many seconds each."""

    start: int
    seconds: int
    slots: list[Slot]


class Timeline:
    """At most `limit` slots, at first of a second each, wherever in time they begin.

    When the time from the first to the last outgrows them, two by two become one (`whole`), or the oldest are
    forgotten.
    """

    def __init__(self, limit: int, *, whole: bool) -> None:
        self._limit = limit
        self._whole = whole
        # Slots are numbered from 1970 on, so that of any two lines the slots fit, and merging is halving.
        self._slots: dict[int, Slot] = {}
        self._shift = 0
        self._first = self._last = 0

    def at(self, second: int) -> Slot:
        """Return the slot of a second, made where needed; what was forgotten is counted nowhere."""
        return self._slots.get(second >> self._shift) or self._make(second)

    def mark(self, since: int, until: int, marks: int) -> None:
        """Mark every slot from one second to another, which comes no earlier, both included."""
        self.at(until)
        if self._whole:
            self.at(since)
        begin = max(since >> self._shift, self._last - self._limit + 1)
        for index in range(begin, (until >> self._shift) + 1):
            self.at(index << self._shift).marks |= marks

    def stretch(self, width: int) -> Stretch:
        """Return at most `width` slots: all, merged until they fit, or else the newest."""
        if not self._slots:
            return Stretch(0, 1, [])
        many = 1
        while self._whole and self._last // many - self._first // many >= width:
            many += 1
        merged = _merged(self._slots, many) if many > 1 else self._slots
        last = self._last // many
        first = max(self._first // many, last - width + 1)
        seconds = many << self._shift
        return Stretch(
            first * seconds, seconds, [merged.get(index) or Slot() for index in range(first, last + 1)]
        )

    def _make(self, second: int) -> Slot:
        index = second >> self._shift
        if not self._slots:
            self._first = self._last = index
        elif self._whole:
            self._first, self._last = min(self._first, index), max(self._last, index)
            while self._last - self._first >= self._limit:
                self._coarsen()
            index = second >> self._shift
        elif index <= self._last - self._limit:
            return Slot()
        else:
            self._forget_before(max(self._last, index) - self._limit + 1)
            self._first, self._last = min(self._first, index), max(self._last, index)
        return self._slots.setdefault(index, Slot())

    def _coarsen(self) -> None:
        self._slots = _merged(self._slots, 2)
        self._shift += 1
        self._first >>= 1
        self._last >>= 1

    def _forget_before(self, index: int) -> None:
        if index > self._last:
            self._slots.clear()
        else:
            for old in range(self._first, index):
                self._slots.pop(old, None)
        self._first = max(self._first, index)


def _merged(slots: dict[int, Slot], many: int) -> dict[int, Slot]:
    merged: dict[int, Slot] = {}
    for index, slot in slots.items():
        merged.setdefault(index // many, Slot()).merge(slot)
    return merged
