"""The time line as a spark line over a bar of troubles, on one axis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from rich.text import Text

from worker.top.timeline import BROKER, GUARD, OUTAGE, Slot, Stretch

Clock = Callable[[float], str]
"""Writes a time of the log, in UTC."""

_SPARKS = " ▁▂▃▄▅▆▇█"
_ASCII_SPARKS = " ._-=+*%#"
_MARKS = {
    OUTAGE: ("O", "LCM outage", "bold white on red"),
    GUARD: ("P", "paused by guard", "bold black on yellow"),
    BROKER: ("B", "broker lost or blocked", "bold white on magenta"),
}
_SEVERAL = ("+", "several", "bold white on red")
_HALF_A_DAY = 43200
_LENGTHS = ((172800, 86400, "d"), (7200, 3600, "h"), (600, 60, "min"))


def clock(first: float, last: float) -> Clock:
    """Return what writes the times of a log: by the day where it is long, by the second where it is short."""
    form = "%H:%M:%S" if last - first < _HALF_A_DAY else "%m-%d %H:%M"
    return lambda at: datetime.fromtimestamp(at, UTC).strftime(form)


def sparks(slots: Sequence[Slot], *, ascii_only: bool) -> Text:
    """Draw the deliveries that ended in each slot, relative to the most of any; red where some failed."""
    steps = _ASCII_SPARKS if ascii_only else _SPARKS
    peak = max((slot.ended for slot in slots), default=0)
    line = Text()
    for slot in slots:
        # Rounded up, so that one delivery is not nothing.
        step = -(-slot.ended * (len(steps) - 1) // peak) if peak else 0
        line.append(steps[step], "red" if slot.failed else "green")
    return line


def bar(slots: Sequence[Slot]) -> Text:
    """Draw the marks of each slot as a letter."""
    line = Text()
    for slot in slots:
        if slot.marks:
            letter, _, style = _MARKS.get(slot.marks, _SEVERAL)
            line.append(letter, style)
        else:
            line.append("·", "dim")
    return line


def axis(stretch: Stretch, write: Clock) -> Text:
    """Write what the slots are: what the highest stands for, how long each, and from when to when."""
    end = stretch.start + len(stretch.slots) * stretch.seconds
    peak = max((slot.ended for slot in stretch.slots), default=0) / stretch.seconds
    each = _length(stretch.seconds)
    return Text(f"at most {peak:,.1f}, {each} each, {write(stretch.start)} to {write(end)} UTC", "dim")


def legend(slots: Sequence[Slot]) -> Text:
    """Say what the letters in the bar mean, as many as are in it."""
    seen = {slot.marks for slot in slots if slot.marks}
    kinds = [kind for mark, kind in _MARKS.items() if mark in seen]
    if seen - _MARKS.keys():
        kinds.append(_SEVERAL)
    return Text("  ").join(Text.assemble((letter, style), f" {meaning}") for letter, meaning, style in kinds)


def _length(seconds: int) -> str:
    for least, size, unit in _LENGTHS:
        if seconds >= least:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds} s"
