"""The tables of the screen. Each row is one line, cut to the width, the most important first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from rich.table import Table
from rich.text import Text

from worker.cli.terminal import one_cell, one_line
from worker.cli.top.chart import Clock
from worker.cli.top.layout import Panel
from worker.cli.top.summary import mean_rate
from worker.cli.top.tally import LATENCIES, Tally
from worker.cli.top.worker_tally import WorkerTally

STYLES = {
    "succeeded": "green", "retry_later": "yellow", "deferred": "yellow", "failed": "red", "stale": "dim",
    "starting": "cyan", "ready": "green", "not ready": "red", "paused": "yellow", "draining": "cyan", "stopped": "dim",
    "warning": "yellow", "error": "red", "critical": "red",
}  # fmt: skip
_MOST_ROWS = 20
_LEAST_ROWS = 3
_WIDE = 110
_WIDEST_NAME = 26
_NARROW_NAME = 14
_TROUBLED, _RUNNING, _STOPPED = range(3)

Item = TypeVar("Item")
Cell = str | Text


def latency(tally: Tally) -> Panel:
    def draw(lines: int) -> Table:
        made = _table(("latency", "p50", "p90", "p99", "max", "jobs"), left=1)
        for name in LATENCIES[: lines - 1]:
            values = tally.latency[name]
            numbers = [milliseconds(values.percentile(share)) for share in (0.5, 0.9, 0.99)]
            cells = [*numbers, milliseconds(values.maximum), f"{values.count:,}"]
            made.add_row(f"{name}_ms", *(cells if values.count else ["-"] * 5))
        return made

    return Panel(6, 1 + len(LATENCIES), 1 + len(LATENCIES), draw)


def workers(tally: Tally, clock: Clock, width: int, *, now: float | None) -> Panel:
    """Workers: those in trouble first, those that have stopped last; the rates of `now`, else means."""
    silences = {worker.name: tally.silence(worker, now) for worker in tally.workers.values()}

    def row(worker: WorkerTally) -> list[Cell]:
        second = tally.second(now, worker)
        mean = mean_rate(worker.jobs, worker.first, worker.last)
        rate = mean if now is None else worker.rate.now(second)
        state = Text(worker.state, STYLES[worker.state])
        silence = silences[worker.name]
        troubles = [*([f"silent {silence:,.0f} s"] if silence else []), *worker.troubles]
        if troubles:
            state.append_text(one_line(f" ({', '.join(troubles)})", "bold red"))
        return [
            worker.name,
            state,
            f"{rate:,.1f}",
            f"{worker.jobs.total():,}",
            _count(worker.jobs["failed"], "red"),
            f"{worker.present(second).in_flight}",
            milliseconds(worker.duration.percentile(0.99)) if worker.duration.count else "-",
            clock(worker.last),
        ]

    def draw(lines: int) -> Table:
        titles = ("worker", "state", "jobs/s", "jobs", "failed", "in flight", "p99 ms", "last seen")
        made = _table(titles, left=2)
        made.columns[0].max_width = _WIDEST_NAME if width >= _WIDE else _NARROW_NAME
        if width < _WIDE:
            # Numbers are shown in full, the state gets the rest of the width.
            made.expand, made.padding, made.columns[1].ratio = True, (0, 1, 0, 0), 1
        return _fill(made, sorted(tally.workers.values(), key=troubled_first), row, lines)

    def troubled_first(worker: WorkerTally) -> tuple[int, str]:
        running = _STOPPED if worker.state == "stopped" else _RUNNING
        return (_TROUBLED if worker.troubles or silences[worker.name] else running, worker.name)

    return _rows(3, len(tally.workers), draw)


def failures(tally: Tally, clock: Clock) -> Panel:
    """Failures by error code, the most frequent first."""

    def draw(lines: int) -> Table:
        made = _table(("error", "failed", "retried", "last", "last message"), left=1)
        made.columns[0].max_width = _WIDEST_NAME
        _stretch(made)
        found = sorted(tally.failures.items(), key=lambda item: (-item[1].failed, -item[1].retried, item[0]))
        return _fill(
            made,
            found,
            lambda item: [
                item[0],
                _count(item[1].failed, "red"),
                _count(item[1].retried, "yellow"),
                clock(item[1].last),
                item[1].message,
            ],
            lines,
        )

    return _rows(4, len(tally.failures), draw)


def notices(tally: Tally, clock: Clock, width: int) -> Panel:
    """Warnings and errors, the newest first; the worker's name only where there is room."""
    wide = width >= _WIDE and len(tally.workers) > 1

    def draw(lines: int) -> Table:
        titles = ("warning or error", "last", *(["worker"] if wide else []), "times", "text")
        made = _table(titles, left=2 + wide)
        made.columns[0].max_width = _WIDEST_NAME
        made.columns[2].max_width = _WIDEST_NAME
        _stretch(made)
        return _fill(
            made,
            tally.notices[::-1],
            lambda notice: [
                one_cell(notice.event, STYLES.get(notice.level, "")),
                clock(notice.last),
                *([notice.worker] if wide else []),
                f"{notice.count:,}",
                notice.text,
            ],
            lines,
        )

    return _rows(5, len(tally.notices), draw)


def closings(tally: Tally) -> Panel:
    """Reasons for closed sessions, the most frequent first."""

    def draw(lines: int) -> Table:
        made = _table(("sessions closed", "reason"), left=0)
        _stretch(made)
        found = tally.closings.most_common()
        return _fill(made, found, lambda item: [f"{item[1]:,}", item[0]], lines)

    return _rows(7, len(tally.closings), draw)


def milliseconds(value: float) -> str:
    """Format milliseconds with as many digits as are exact."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"  # noqa: PLR2004 - three digits, with an error of 5 %


def _rows(rank: int, rows: int, draw: Callable[[int], Table]) -> Panel:
    """Return a panel of a title and at least two rows, if there are two; an empty one where there are no rows."""
    most = 1 + min(rows, _MOST_ROWS) if rows else 0
    return Panel(rank, min(most, _LEAST_ROWS), most, draw)


def _table(titles: Sequence[str], *, left: int) -> Table:
    """Return a table without rows: the first columns and a last one with text are left-aligned, numbers right."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for index, title in enumerate(titles):
        text = index < left or title in {"last message", "text", "reason"}
        made.add_column(
            title, justify="left" if text else "right", no_wrap=True, overflow="ellipsis", highlight=False
        )
    return made


def _stretch(made: Table) -> None:
    """Give the last column the rest of the width."""
    made.expand = True
    made.columns[-1].ratio = 1


def _fill(made: Table, items: Sequence[Item], row: Callable[[Item], Sequence[Cell]], lines: int) -> Table:
    shown = items[: lines - 1]
    if len(shown) < len(items):
        made.columns[0].header = f"{made.columns[0].header} {len(shown)}/{len(items)}"
    for item in shown:
        made.add_row(*(one_cell(cell) if isinstance(cell, str) else cell for cell in row(item)))
    return made


def _count(number: int, style: str) -> Text:
    return Text(f"{number:,}", style if number else "dim")
