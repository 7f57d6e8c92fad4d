"""Draws the time line: a spark line of deliveries over a bar of troubles, on one axis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from rich.text import Text

from worker.cli.top.timeline import BROKER, GUARD, OUTAGE, Slot, Stretch

Clock = Callable[[float], str]
"""Formats a time of the log, in UTC."""

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
    """Return a formatter for the times of a log: with seconds where it is short, with the day where it is long."""
    form = "%H:%M:%S" if last - first < _HALF_A_DAY else "%m-%d %H:%M"
    return lambda at: datetime.fromtimestamp(at, UTC).strftime(form)


def sparks(slots: Sequence[Slot], *, ascii_only: bool) -> Text:
    """Draw the number of deliveries that ended in each slot, scaled to the highest; red where some failed."""
    steps = _ASCII_SPARKS if ascii_only else _SPARKS
    peak = max((slot.ended for slot in slots), default=0)
    line = Text()
    for slot in slots:
        # Rounded up, so that a single delivery is visible.
        step = -(-slot.ended * (len(steps) - 1) // peak) if peak else 0
        line.append(steps[step], "red" if slot.failed else "green")
    return line


def bar(slots: Sequence[Slot]) -> Text:
    """Draw a letter for the marks of each slot."""
    line = Text()
    for slot in slots:
        if slot.marks:
            letter, _, style = _MARKS.get(slot.marks, _SEVERAL)
            line.append(letter, style)
        else:
            line.append("·", "dim")
    return line


def axis(stretch: Stretch[Slot], clock: Clock) -> Text:
    """Describe the axis: the rate of the highest slot, the length of a slot, and the time from start to end."""
    end = stretch.start + len(stretch.slots) * stretch.seconds
    peak = max((slot.ended for slot in stretch.slots), default=0) / stretch.seconds
    each = _length(stretch.seconds)
    return Text(f"at most {peak:,.1f}, {each} each, {clock(stretch.start)} to {clock(end)} UTC", "dim")


def legend(slots: Sequence[Slot]) -> Text:
    """Explain the letters that occur in the bar."""
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
