"""What a person sees of a submission: notices, bars, a summary. In a pipe there are no bars."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from worker.submitting.tally import Collected
from worker.tables import add_row, printable, table

_BAR = 24


class Screen:
    """Standard error, with a line of its own for each notice, above the bars where there are any."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)
        self._progress = Progress(
            TextColumn("{task.description:<9}"),
            BarColumn(bar_width=_BAR),
            _Count(),
            _Rate(),
            TimeRemainingColumn(compact=True),
            console=self._console,
            disable=not self._console.is_terminal,
            transient=True,
        )

    def say(self, text: str) -> None:
        """Tell something in a line."""
        self._console.print(Text(f"lcm-worker: {printable(text)}"), soft_wrap=True)

    @contextmanager
    def bars(self, names: list[str], total: int) -> Iterator[list[Bar]]:
        """Show a bar for each name while inside."""
        with self._progress:
            yield [Bar(self._progress, name, total) for name in names]


class Bar:
    """One line of progress."""

    def __init__(self, progress: Progress, name: str, total: int) -> None:
        self._progress = progress
        self._task = progress.add_task(name, total=total)

    def show(self, done: int, total: int) -> None:
        self._progress.update(self._task, completed=done, total=total)


class _Count(ProgressColumn):
    def render(self, task: Task) -> Text:
        total = f"{int(task.total or 0):,}"
        return Text(f"{int(task.completed):>{len(total)},}/{total}")


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed or 0:>6,.0f}/s", style="dim")


class Notices:
    """A log that tells a person the few events that matter while something is published or collected."""

    def __init__(self, screen: Screen, doing: str) -> None:
        self._screen = screen
        self._doing = doing
        self._lost = False
        self._refused = False

    def debug(self, event: str, **fields: Any) -> None:
        self._told(event, fields)

    info = warning = error = exception = debug

    def _told(self, event: str, fields: dict[str, Any]) -> None:
        match event:
            case "broker.lost":
                self._lost = True
                self._screen.say(
                    f"{self._doing}: the connection is lost ({fields['reason']}), connecting again"
                )
            case "broker.unreachable" if fields["attempt"] == 1:
                self._lost = True
                self._screen.say(f"{self._doing}: the broker is away ({fields['error']}), trying again")
            case "broker.connected" if self._lost:
                self._lost = False
                self._screen.say(f"{self._doing}: connected again")
            case "broker.blocked":
                self._screen.say(
                    f"{self._doing}: the broker has a memory or disk alarm and takes no messages; waiting"
                )
            case "broker.unblocked":
                self._screen.say(f"{self._doing}: the broker takes messages again")
            case "publish.refused" if not self._refused:
                self._refused = True
                self._screen.say(f"{self._doing}: {fields['error']}; trying again")


def show_results(collected: Collected) -> None:
    """Show the first results, and how many of each kind there are, on standard output."""
    console = Console(file=sys.stdout, markup=False, highlight=False)
    made = table("account", "came to", "job")
    for result in collected.first_results:
        came_to = Text(f"{len(result.outcomes)} outcomes", style="green")
        if result.error is not None:
            came_to = Text(f"failed: {result.error.code}", style="red")
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
        add_row(made, Text(f"failed: {code}", style="red"), f"{count:,}")
    if collected.missing:
        add_row(made, Text("missing", style="yellow"), f"{collected.missing:,}")
    return made
