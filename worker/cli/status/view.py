"""A status on a terminal: the findings, the most urgent first, over a table of the queues."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from worker.broker.admin.inspect import Finding
from worker.cli.levels import STYLES
from worker.cli.status.document import queue_names
from worker.cli.status.gathering import Status
from worker.cli.status.workers import FleetState, limit_in_words
from worker.cli.tables import add_row, table
from worker.cli.terminal import one_line

UNKNOWN = "unknown"
_LEVEL = 8
_MOST_BINDINGS = 4


@dataclass(frozen=True, slots=True)
class View:
    """What is shown; `hide` masks secrets, `hint` stands at the upper right."""

    status: Status
    findings: Sequence[Finding]
    hide: Callable[[str], str]
    hint: str = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        del console, options
        yield self._head()
        yield self._findings()
        if self.status.look is not None:
            yield self._queues()
            yield from self._facts()
        if self.status.reasons is not None:
            yield from self._reasons()

    def _head(self) -> Table:
        where = f"{self.status.look.broker}, " if self.status.look else ""
        head = Table.grid(expand=True, padding=(0, 1, 0, 0))
        head.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        head.add_column(no_wrap=True, justify="right")
        at = f"{self.status.at:%Y-%m-%d %H:%M:%S}"
        head.add_row(one_line(f"status: {where}{at} UTC", "bold"), Text(self.hint, "dim"))
        return head

    def _findings(self) -> Table:
        shown = Table.grid(padding=(0, 1, 0, 0))
        shown.add_column(width=_LEVEL - 1)
        shown.add_column(overflow="fold")
        for place, finding in enumerate(self.findings):
            text = one_line(self.hide(f"{finding.what}: {finding.detail}"), "" if place else "bold")
            shown.add_row(Text(finding.level, STYLES[finding.level]), text)
        return shown

    def _queues(self) -> Table:
        more = ("unacked", "in/s", "out/s") if self.status.statistics else ()
        shown = table("queue", "ready", "consumers", "oldest", *more)
        for column in shown.columns[1:]:
            column.justify, column.no_wrap = "right", True
        for name in queue_names(self.status):
            counted, told = self.status.queue(name), self.status.told(name)
            if counted.state == "missing":
                add_row(shown, name, Text("missing", STYLES["missing"]), "", "", *("" for _ in more))
                continue
            cells = [_count(counted.ready), _count(counted.consumers)]
            cells.append("" if counted.ready == 0 else _age(self.status.age(name)))
            if more:
                cells += [_count(told.unacknowledged), _rate(told.publish_rate), _rate(told.deliver_rate)]
            add_row(shown, name, *cells)
        return shown

    def _facts(self) -> Iterator[RenderableType]:
        status = self.status
        consumers = status.queue(status.topology.jobs).consumers
        workers = f"{_count(consumers)} consume jobs"
        if status.fleet is None:
            yield _fact("workers", f"{workers}; what workers do beside that is not told")
        else:
            yield _fact("workers", workers)
            yield from _fleet(status.fleet, self.hide)
        if status.statistics is None:
            bound = f"{UNKNOWN}, since AMQP does not tell; give --management URL"
        else:
            named = [f"{to} ({key})" for to, key in status.statistics.results_to]
            more = len(named) - _MOST_BINDINGS
            bound = ", ".join(named[:_MOST_BINDINGS]) or "nobody"
            bound += f" and {more} more" if more > 0 else ""
        yield _fact("results to", bound)

    def _reasons(self) -> Iterator[RenderableType]:
        shown = table("dead letters", "count", "oldest (UTC)")
        shown.columns[1].justify = "right"
        for each in self.status.reasons or ():
            oldest = f"{each.oldest:%Y-%m-%d %H:%M:%S}" if each.oldest else UNKNOWN
            add_row(shown, each.code, f"{each.count:,}", oldest)
        if shown.row_count:
            yield shown


def _fleet(fleet: FleetState, hide: Callable[[str], str]) -> Iterator[RenderableType]:
    if limit := limit_in_words(fleet.sessions, fleet.rate):
        held = sum(each.sessions for each in fleet.workers)
        together = f"for {len(fleet.workers):,} workers together; sessions open: {held:,}"
        yield _fact("limit", f"{limit} {together}")
    workers = table("worker", "seen", "sessions", "share", "takes jobs")
    for column in workers.columns[1:4]:
        column.justify, column.no_wrap = "right", True
    for each in fleet.workers:
        share = "no limit" if each.share is None else f"{each.share:,}"
        takes = hide(f"no: {', '.join(each.paused)}") if each.paused else "yes"
        add_row(workers, hide(each.name), f"{each.seen_s:.0f} s ago", f"{each.sessions:,}", share, takes)
    if fleet.workers:
        yield workers


def _fact(name: str, text: str) -> Text:
    return Text(f"{name:<12}", "bold").append_text(one_line(text, "default"))


def _count(count: int | None) -> str:
    return UNKNOWN if count is None else f"{count:,}"


def _rate(rate: float | None) -> str:
    return UNKNOWN if rate is None else f"{rate:,.1f}"


def _age(seconds: float | None) -> str:
    if seconds is None:
        return UNKNOWN
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds // size:.0f} {unit}"
    return f"{seconds:.0f} s"
