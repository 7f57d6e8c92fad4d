"""What a person sees of a submission: notes and progress bars while it runs, and tables of results at its end."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from worker.cli.submit.tally import Collected
from worker.cli.tables import add_row, table
from worker.cli.terminal import Terminal, one_cell, one_line

_STALLED = 5.0  # seconds without progress, after which their number is shown in place of the rate


class Screen:
    """Standard error: notes, one to a line, above progress bars. Without a terminal there are no bars."""

    def __init__(self) -> None:
        self._console = Terminal(stderr=True, soft_wrap=True)
        self._progress = Progress(
            TextColumn("{task.description:<9}"),
            BarColumn(bar_width=None),
            _Count(),
            _Rate(),
            TimeRemainingColumn(compact=True),
            console=self._console,
            disable=not self._console.is_terminal,
            transient=True,
            expand=True,
        )

    def note(self, text: str) -> None:
        """Print a line; `worker.cli.common.note` would break the bars."""
        self._console.print(one_line(f"lcm-worker: {text}"), soft_wrap=True)

    @contextmanager
    def bars(self, names: list[str], total: int) -> Iterator[list[Bar]]:
        """Show a progress bar for each name while inside."""
        with self._progress:
            yield [Bar(self._progress, name, total) for name in names]


class Bar:
    """One progress bar. `moved` is when it last made progress, by the monotonic clock."""

    def __init__(self, progress: Progress, name: str, total: int) -> None:
        self._progress = progress
        self._done = 0
        self._task = progress.add_task(name, total=total, moved=time.monotonic())

    def update(self, done: int, total: int) -> None:
        if done != self._done:
            self._done = done
            self._progress.update(self._task, moved=time.monotonic())
        self._progress.update(self._task, completed=done, total=total)


class _Count(ProgressColumn):
    def render(self, task: Task) -> Text:
        total = f"{int(task.total or 0):,}"
        return Text(f"{int(task.completed):>{len(total)},}/{total}")


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{rate_of(task, time.monotonic()):>13}", style="dim")


def rate_of(task: Task, now: float) -> str:
    """Return the rate of a task: the current one, the mean once it has finished, or for how long it has stalled."""
    if task.finished:
        return f"{task.completed / max(task.finished_time or 0.0, 0.001):,.0f}/s"
    stalled = now - task.fields["moved"]
    return f"none for {stalled:.0f} s" if stalled >= _STALLED else f"{task.speed or 0:,.0f}/s"


class NoticeLog:
    """A log that notes the few events that matter to a person while jobs are published or results collected.

    `doing` is what the connection is for, and begins each note.
    """

    def __init__(self, screen: Screen, doing: str) -> None:
        self._screen = screen
        self._doing = doing
        self._lost = False
        self._refused = False

    def debug(self, event: str, **fields: Any) -> None:
        self._note(event, fields)

    info = warning = error = exception = debug

    def _note(self, event: str, fields: dict[str, Any]) -> None:
        match event:
            case "broker.lost":
                self._lost = True
                self._screen.note(
                    f"{self._doing}: the connection is lost ({fields['reason']}), connecting again"
                )
            case "broker.unreachable" if fields["attempt"] == 1:
                self._lost = True
                self._screen.note(f"{self._doing}: the broker is away ({fields['error']}), trying again")
            case "broker.connected" if self._lost:
                self._lost = False
                self._screen.note(f"{self._doing}: connected again")
            case "broker.blocked":
                self._screen.note(
                    f"{self._doing}: the broker has a memory or disk alarm and takes no messages; waiting"
                )
            case "broker.unblocked":
                self._screen.note(f"{self._doing}: the broker takes messages again")
            case "publish.refused" if not self._refused:
                self._refused = True
                self._screen.note(f"{self._doing}: {fields['error']}; trying again")


def show_results(collected: Collected) -> None:
    """Print tables of the first results and of the number of each kind to standard output."""
    console = Terminal(file=sys.stdout)
    made = table("account", "came to", "job")
    for result in collected.first_results:
        came_to = Text(f"{len(result.outcomes)} outcomes", style="green")
        if result.error is not None:
            came_to = one_cell(f"failed: {result.error.code}", "red")
        add_row(made, result.account_number or "(unreadable)", came_to, result.job_id)
    if made.row_count:
        console.print(made)
    if more := collected.count - made.row_count:
        console.print(f"and {more:,} more; --output FILE writes all of them")
    console.print(_kinds(collected))


def _kinds(collected: Collected) -> Table:
    made = table("result", "jobs")
    made.columns[1].justify = "right"
    add_row(made, Text("succeeded", style="green"), f"{collected.succeeded:,}")
    for code, count in sorted(collected.failed.items()):
        add_row(made, one_cell(f"failed: {code}", "red"), f"{count:,}")
    if collected.missing:
        add_row(made, Text("missing", style="yellow"), f"{collected.missing:,}")
    return made
