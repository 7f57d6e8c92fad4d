"""Renders a tally as text of a given width and height.

Every line is cut to the width; panels that don't fit the height are left out, the least important first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from worker.cli.top import chart, panels
from worker.cli.top.layout import Panel, shares
from worker.cli.top.summary import mean_rate
from worker.cli.top.tally import RESULTS, Tally
from worker.cli.top.worker_tally import SESSIONS
from worker.common.text import printable

_LABEL = 10
_LONGEST_REASON = 20


@dataclass(frozen=True, slots=True)
class Screen:
    """What is shown of a tally.

    Args:
        tally: the counts.
        lines: how many lines were read.
        skipped: how many of them were not lines of a worker's log.
        now: the present time, by the clock that the tally was fed with: show current rates, and who is silent. Without
            it means, and who was silent at the end of the log.
        whole: show the time line from the first line of the log on, else its newest seconds.
        hint: text at the upper right.
        height: lines of the screen; None shows every panel in full.
    """

    tally: Tally
    lines: int
    skipped: int
    now: float | None = None
    whole: bool = True
    hint: str = ""
    height: int | None = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        every = [panel for panel in self._panels(options.max_width, options.ascii_only) if panel.most]
        given = shares(every, self.height)
        # With blank lines between panels of different ranks, where there is room for them.
        spaced = self.height is None or sum(given) + len({panel.rank for panel in every}) <= self.height
        above = 0
        for panel, lines in zip(every, given, strict=True):
            if lines and spaced and panel.rank != above:
                yield Segment.line()
            if lines:
                above = panel.rank
                drawn = console.render_lines(panel.draw(lines), options.update(height=None), pad=False)
                for line in drawn[:lines]:
                    yield from line
                    yield Segment.line()

    def _panels(self, width: int, ascii_only: bool) -> Iterator[Panel]:
        yield Panel(0, 1, 1, lambda _: self._head())
        if not self.tally.last:
            return
        clock = chart.clock(self.tally.first, self.tally.last)
        yield from _lines(1, self._timeline(clock, width, ascii_only))
        yield from _lines(2, self._counts(width))
        yield panels.latency(self.tally)
        yield panels.workers(self.tally, clock, width, now=self.now)
        yield panels.failures(self.tally, clock)
        yield panels.notices(self.tally, clock, width)
        yield panels.closings(self.tally)

    def _head(self) -> Table:
        read = f"{self.lines:,} line{'' if self.lines == 1 else 's'}"
        skipped = f", {self.skipped:,} skipped" if self.skipped else ""
        until = f" until {_moment(self.tally.last)} UTC" if self.tally.last else ""
        head = Table.grid(expand=True, padding=(0, 1, 0, 0))
        head.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        head.add_column(no_wrap=True, justify="right")
        head.add_row(Text(f"top: {read}{until}{skipped}", "bold"), Text(self.hint, "dim"))
        return head

    def _timeline(self, clock: chart.Clock, width: int, ascii_only: bool) -> Iterator[Text]:
        timeline = self.tally.whole if self.whole else self.tally.recent
        until = 0 if self.now is None else self.tally.second(self.now)
        stretch = timeline.stretch(max(width - _LABEL, 1), until)
        yield _labelled("jobs/s", chart.sparks(stretch.slots, ascii_only=ascii_only))
        yield _labelled("troubles", chart.bar(stretch.slots))
        yield _labelled("", Text.assemble((self._rate(), "bold"), ", ", chart.axis(stretch, clock)))
        if any(slot.marks for slot in stretch.slots):
            yield _labelled("", chart.legend(stretch.slots))

    def _rate(self) -> str:
        tally = self.tally
        if self.now is not None:
            return f"now {tally.rate.now(tally.second(self.now)):,.1f}"
        return f"mean {mean_rate(tally.jobs, tally.first, tally.last):,.1f}"

    def _counts(self, width: int) -> Iterator[Text]:
        tally, workers = self.tally, self.tally.workers.values()
        jobs = [_item(name, tally.jobs[name], panels.STYLES[name]) for name in RESULTS]
        yield from _flow("jobs", jobs, width)
        present = [worker.present(tally.second(self.now, worker)) for worker in workers]
        now = [_item("in flight", sum(each.in_flight for each in present))]
        now += [_item(name, sum(each.sessions[name] for each in present)) for name in SESSIONS]
        if fleet_workers := max((each.fleet_workers for each in present), default=0):
            now.append(_item("share", sum(each.share for each in present)))
            now.append(_item("workers in the fleet", fleet_workers))
        if counted_at := max((worker.counted_at for worker in workers), default=0.0):
            now.append(Text(f"at {_moment(counted_at)[11:]}", "dim"))
        yield from _flow("sessions", now, width)
        yield from _flow("so far", list(self._incidents()), width)

    def _incidents(self) -> Iterator[Text]:
        tally, events = self.tally, self.tally.events
        yield _item("opened", events["lcm.session_opened"])
        yield _item("closed", events["lcm.session_closed"])
        if events["lcm.session_failed"]:
            yield _item("not opened", events["lcm.session_failed"], "red")
        outages = _item("outages", events["lcm.outage_started"], "red")
        if tally.outage_seconds:
            outages.append(f" ({tally.outage_seconds:,.0f} s)")
        yield outages
        for reason, count in tally.pauses.items():
            if reason != "outage":
                yield _item(f"paused by {printable(reason)[:_LONGEST_REASON]}", count, "yellow")
        yield _item("broker lost", events["broker.lost"], "magenta")
        yield _item("blocked", events["broker.blocked"], "magenta")
        if tally.forgotten_workers:
            yield _item("workers forgotten", tally.forgotten_workers)


def _lines(rank: int, lines: Iterable[Text]) -> Iterator[Panel]:
    """Make a panel of each line, so that the first ones are shown where there is room for few."""
    for line in lines:
        yield Panel(rank, 1, 1, partial(_constant, line))


def _constant(text: Text, _lines: int) -> Text:
    return text


def _labelled(label: str, text: Text) -> Text:
    line = Text.assemble((f"{label:<{_LABEL}}", "bold"), text)
    line.no_wrap, line.overflow = True, "ellipsis"
    return line


def _flow(label: str, items: Sequence[Text], width: int) -> Iterator[Text]:
    """Put items on as few lines as possible, without breaking any."""
    line = Text()
    for item in items:
        if line and _LABEL + line.cell_len + 2 + item.cell_len > width:
            yield _labelled(label, line)
            label, line = "", Text()
        line = line.append("  ") if line else line
        line.append_text(item)
    yield _labelled(label, line)


def _item(name: str, count: int, style: str = "bold") -> Text:
    return Text.assemble(f"{name} ", (f"{count:,}", style if count else "dim"))


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")
