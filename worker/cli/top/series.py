"""What a report plots of a tally: series over the time slots of the whole log, all on one axis. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import cast

import msgspec

from worker.cli.top.histogram import Histogram
from worker.cli.top.tally import Tally
from worker.cli.top.timeline import BROKER, GUARD, OUTAGE, DetailedSlot, Slot, Stretch

_RESULTS = {
    "succeeded": "good",
    "retry_later": "later",
    "deferred": "put-off",
    "stale": "other",
    "failed": "bad",
}
_PERCENTILES = (("p50", 0.5, "low"), ("p95", 0.95, "middle"), ("p99", 0.99, "high"))
_LANES = (
    ("LCM outage", OUTAGE, "outage"),
    ("paused by guard", GUARD, "guard"),
    ("broker lost or blocked", BROKER, "broker"),
)
_MOST_CODES = 7
_OTHER_CODES = "(others)"
_SLOTS = 1 << 30

Values = list[float | None]


class Series(msgspec.Struct):
    """A line, or a layer of a stack: a value for each slot, null where there is none. `style` names its colour."""

    name: str
    style: str
    values: Values


class Chart(msgspec.Struct):
    """Series in one unit; `form` is `stack`, `steps`, or `log` for lines on a logarithmic scale."""

    title: str
    unit: str
    form: str
    series: list[Series]


class Lane(msgspec.Struct):
    """When something was wrong: the first slot of each span, and the one after its last."""

    name: str
    style: str
    spans: list[tuple[int, int]]


class Plots(msgspec.Struct):
    """All plots: `count` slots of `seconds` each from `start` on, in seconds since 1970."""

    start: int
    seconds: int
    count: int
    lanes: list[Lane]
    charts: list[Chart]


def plots(tally: Tally) -> Plots:
    """Return the plots of a tally, which must be detailed."""
    stretch = cast(Stretch[DetailedSlot], tally.whole.stretch(_SLOTS))
    slots, seconds = stretch.slots, stretch.seconds
    return Plots(
        stretch.start,
        seconds,
        len(slots),
        [Lane(name, style, list(_spans(slots, mark))) for name, mark, style in _LANES],
        [
            Chart("Deliveries that ended", "per second", "stack", _results(slots, seconds)),
            Chart("Time of LCM's answer", "ms", "log", _percentiles([slot.lcm for slot in slots])),
            Chart("Time of the whole job", "ms", "log", _percentiles([slot.duration for slot in slots])),
            Chart("Failed or retried later, by error code", "per second", "stack", _codes(slots, seconds)),
            Chart("Sessions with LCM, of all workers", "", "steps", _sessions(tally, stretch)),
        ],
    )


def _spans(slots: Sequence[Slot], mark: int) -> Iterator[tuple[int, int]]:
    begin = None
    for index, slot in enumerate((*slots, Slot())):
        if slot.marks & mark:
            begin = index if begin is None else begin
        elif begin is not None:
            yield begin, index
            begin = None


def _results(slots: Sequence[DetailedSlot], seconds: int) -> list[Series]:
    return [
        Series(name, style, _rates((slot.results[name] for slot in slots), seconds))
        for name, style in _RESULTS.items()
        if any(slot.results[name] for slot in slots)
    ]


def _codes(slots: Sequence[DetailedSlot], seconds: int) -> list[Series]:
    total = sum((slot.errors for slot in slots), Counter[str]())
    own = [code for code, _ in total.most_common(_MOST_CODES)]
    series = [
        Series(code, f"c{index}", _rates((slot.errors[code] for slot in slots), seconds))
        for index, code in enumerate(own)
    ]
    if len(total) > len(own):
        rest = (slot.errors.total() - sum(slot.errors[code] for code in own) for slot in slots)
        series.append(Series(_OTHER_CODES, "other", _rates(rest, seconds)))
    return series


def _percentiles(histograms: Sequence[Histogram]) -> list[Series]:
    return [
        Series(
            name,
            style,
            [round(each.percentile(share), 2) if each.count else None for each in histograms],
        )
        for name, share, style in _PERCENTILES
    ]


def _sessions(tally: Tally, stretch: Stretch[DetailedSlot]) -> list[Series]:
    """Return the sums of the workers' sessions; those of a worker that fell silent are gone with its last line."""
    opened = [slot.opened for slot in stretch.slots]
    waiting = [slot.waiting for slot in stretch.slots]
    for worker in tally.workers.values():
        if tally.silence(worker):
            last = (int(worker.last) - stretch.start) // stretch.seconds
            opened[last] -= worker.opened
            waiting[last] -= worker.waiting
    return [
        Series("open", "c0", list(accumulate(opened))),
        Series("exchanges that wait for one", "c1", list(accumulate(waiting))),
    ]


def _rates(counts: Iterable[int], seconds: int) -> Values:
    return [round(count / seconds, 3) for count in counts]
