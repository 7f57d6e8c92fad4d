"""Where an operator works on the dead-letter queue: what is looked at, which letters are meant, how they are shown."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from worker.broker.dead_letters import Look
from worker.broker.topology import topology_of
from worker.dead_letter import Group, Letter, Selection, as_json, read_letter, stamp
from worker.message import Delivery
from worker.settings import Settings
from worker.tables import add_row, printable, table
from worker.text import rfc3339

_WIDEST_CODE = 24
_DAY, _TIME = len("2026-01-31"), len("2026-01-31 12:00:00")
_BROAD = 120
_BROADEST_HEX = 1024


@dataclass(frozen=True, slots=True)
class Desk:
    """Where an operator's command works: on what, on which letters, and whether a person looks at its output."""

    settings: Settings
    selection: Selection
    for_people: bool
    console: Console = field(default_factory=lambda: Console(highlight=False, markup=False))

    @property
    def queue(self) -> str:
        """The name of the dead-letter queue."""
        return topology_of(self.settings.broker).dead

    @property
    def name(self) -> str:
        """What the broker shows for our connections."""
        return f"{self.settings.worker.name} dead"

    def say(self, text: str) -> None:
        """Tell something beside the results."""
        print(f"lcm-worker: {printable(text)}", file=sys.stderr)

    def tell(self, line: bytes) -> None:
        """Write one line of results."""
        sys.stdout.buffer.write(line + b"\n")
        sys.stdout.buffer.flush()

    def tell_letter(self, letter: Letter) -> None:
        """Write the line of a letter that was replayed or dropped; people get the sum alone."""
        if not self.for_people:
            self.tell(as_json(_outline(letter)))

    def tell_groups(self, groups: list[Group], title: str) -> None:
        """Show groups as a table, or as lines."""
        if not self.for_people:
            for group in groups:
                self.tell(as_json(_line_of(group)))
            return
        shown = table("count", "code", "oldest", "newest", "reason", title=f"{title}; times in UTC")
        shown.columns[0].justify = "right"
        for column in shown.columns[2:4]:
            column.width = _TIME if self.console.width >= _BROAD else _DAY
        shown.columns[1].no_wrap = max((len(group.code) for group in groups), default=0) <= _WIDEST_CODE
        for group in groups:
            add_row(
                shown, str(group.count), group.code, _time(group.oldest), _time(group.newest), group.shape
            )
        self.console.print(shown)

    async def matching(self, look: Look, *, prints: bool = False) -> AsyncIterator[tuple[Delivery, Letter]]:
        """Give the letters that are meant, at most `limit` of them, with a progress bar for those who watch.

        Not where the caller `prints` to the same terminal meanwhile.
        """
        found, wanted = 0, self.selection.limit
        missing = set(self.selection.job_ids)
        with _progress(look, hidden=prints and sys.stdout.isatty()) as advance:
            async for delivery in look.letters():
                letter = read_letter(delivery)
                if self.selection.takes(letter):
                    found += 1
                    missing.discard(letter.job.job_id)
                    yield delivery, letter
                advance()
                if wanted is not None and found >= wanted:
                    break
        if not look.total:
            self.say(f"{self.queue} is empty")
        elif not found:
            self.say(f"nothing matches in {self.queue}, of {look.seen} looked at")
        elif missing and (wanted is None or found < wanted):
            self.say(f"not in {self.queue}: {', '.join(sorted(missing))}")
        if look.seen < look.total and (wanted is None or found < wanted):
            self.say(f"{look.total - look.seen} of {look.total} did not come: somebody else holds them")
        elif look.others:
            self.say(f"somebody else looks at {self.queue} as well; what they hold is not seen here")

    def tell_record(self, record: Mapping[str, Any], place: int) -> None:
        """Show all of one letter: a line of JSON, or for people a page."""
        if not self.for_people:
            self.tell(as_json(record))
            return
        plain = msgspec.json.decode(as_json(record))
        self._print(f"{place}. {plain['job_id']}: {plain['code']}", style="bold")
        self._print(f"failed at  {plain['failed_at'] or 'unknown'}")
        self._print(f"reason     {plain['reason']}")
        for title in ("properties", "headers"):
            self._print(title, style="bold")
            for name, value in plain[title].items():
                shown = value if isinstance(value, str) else msgspec.json.encode(value).decode()
                self._print(f"  {name}  {shown}")
        self._print("body", style="bold")
        for line in _body_lines(record):
            self._print(f"  {line}")
        self.console.print()

    def _print(self, text: str, *, style: str = "") -> None:
        self.console.print(Text(printable(text), style=style), soft_wrap=True)


def letters(count: int) -> str:
    """Say how many."""
    return "1 letter" if count == 1 else f"{count} letters"


def _outline(letter: Letter) -> dict[str, Any]:
    return {
        "job_id": letter.job.job_id,
        "code": letter.code,
        "reason": letter.reason,
        "failed_at": stamp(letter.failed_at),
        "replays": letter.job.replays,
    }


def _line_of(group: Group) -> dict[str, Any]:
    return {
        "code": group.code,
        "reason": group.shape,
        "count": group.count,
        "oldest": stamp(group.oldest),
        "newest": stamp(group.newest),
    }


def _time(moment: datetime | None) -> str:
    return rfc3339(moment)[:19].replace("T", " ") if moment else "unknown"


def _body_lines(record: Mapping[str, Any]) -> list[str]:
    """Return a body for people: JSON indented, other text as it is, else the first KiB as hexadecimal digits."""
    if "body" not in record:
        raw = msgspec.convert(record["body_base64"], bytes)
        digits = raw[:_BROADEST_HEX].hex(" ", -4)
        return [f"{len(raw)} bytes, not UTF-8:", digits + (" …" if len(raw) > _BROADEST_HEX else "")]
    body: str = record["body"]
    try:
        # Not decoded, which would lose repeated keys and the form of numbers.
        msgspec.json.decode(body, type=msgspec.Raw)
        return msgspec.json.format(body, indent=2).splitlines()
    except (msgspec.DecodeError, RecursionError):
        return body.splitlines() or ["(empty)"]


@contextmanager
def _progress(look: Look, *, hidden: bool) -> Iterator[Callable[[], object]]:
    """Show how far a look has come, on standard error and only where that is a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("looking"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(
        *columns, console=console, transient=True, disable=hidden or not console.is_terminal
    ) as progress:
        task = progress.add_task("", total=look.total)
        yield lambda: progress.advance(task)
