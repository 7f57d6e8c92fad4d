"""How dead letters are selected from the queue and printed: tables and pages for people, JSON lines for programs."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from worker.broker.admin.dead_letter import DeadLetter, as_json, read_dead_letter, sender_of, timestamp
from worker.broker.admin.dead_letters import Browser, ours_of
from worker.broker.topology import topology_of
from worker.cli.common import note, print_line
from worker.cli.dead.selection import Group, Selection
from worker.cli.tables import add_row, named_values, table
from worker.cli.terminal import Terminal, one_line
from worker.common.text import rfc3339
from worker.contract.message import Delivery
from worker.settings import Settings

_UNBROKEN_CODE = 24
_DAY_AND_TIME = slice(len("2026-"), len("2026-01-31 12:00"))
_WIDE = 120
_SHOWN_BYTES = 1024


@dataclass(frozen=True, slots=True)
class DeadLetterConsole:
    """What a `dead` command works on and prints to. `for_people` is false in a pipe and with `--json`."""

    settings: Settings
    selection: Selection
    for_people: bool
    terminal: Terminal = field(default_factory=Terminal)

    @property
    def queue(self) -> str:
        """The name of the dead-letter queue."""
        return topology_of(self.settings.broker).dead

    @property
    def name(self) -> str:
        """The name of the command's connections, which the broker shows."""
        return f"{self.settings.worker.name} dead"

    async def selected(
        self, browser: Browser, *, prints: bool = False
    ) -> AsyncIterator[tuple[Delivery, DeadLetter]]:
        """Yield the selected dead letters, at most `limit`, and note at the end what was not found.

        Meanwhile a progress bar is shown, unless the caller `prints` each of them to the same terminal.
        """
        found, limit = 0, self.selection.limit
        missing = set(self.selection.job_ids)
        ours = ours_of(self.settings.broker)
        with _progress(browser, hidden=prints and sys.stdout.isatty()) as advance:
            async for delivery in browser.deliveries():
                letter = read_dead_letter(delivery, ours)
                if self.selection.matches(letter):
                    found += 1
                    missing.discard(letter.job.job_id)
                    yield delivery, letter
                advance()
                if limit is not None and found >= limit:
                    break
        if not browser.total:
            note(f"{self.queue} is empty")
        elif not found:
            note(f"nothing matches in {self.queue}, of {browser.seen} looked at")
        elif missing and (limit is None or found < limit):
            note(f"not in {self.queue}: {', '.join(sorted(missing))}")
        if browser.seen < browser.total and (limit is None or found < limit):
            note(f"{browser.total - browser.seen} of {browser.total} did not come: somebody else holds them")
        elif browser.other_consumers:
            note(f"somebody else looks at {self.queue} as well; what they hold is not seen here")

    def print_letter(self, letter: DeadLetter) -> None:
        """Print the line of a dead letter that was replayed, or would be dropped; nothing for people."""
        if not self.for_people:
            print_line(as_json(_outline(letter)))

    def print_groups(self, groups: list[Group], title: str) -> None:
        """Print groups as a table, or as lines."""
        if not self.for_people:
            for group in groups:
                print_line(as_json(_group_record(group)))
            return
        sent_by = ["sent by"] if any(group.user_id or group.app_id for group in groups) else []
        shown = table("count", "code", *sent_by, "oldest", "newest", "reason", title=f"{title}; times in UTC")
        shown.columns[0].justify = "right"
        for column in shown.columns[-3:-1]:
            column.no_wrap = True
        times = slice(None) if self.terminal.width >= _WIDE else _DAY_AND_TIME
        shown.columns[1].no_wrap = max((len(group.code) for group in groups), default=0) <= _UNBROKEN_CODE
        for group in groups:
            oldest, newest = time_of(group.oldest, times), time_of(group.newest, times)
            sender = [" ".join(filter(None, (group.user_id, group.app_id)))] if sent_by else []
            add_row(shown, str(group.count), group.code, *sender, oldest, newest, group.pattern)
        self.terminal.print(shown)

    def print_record(self, record: Mapping[str, Any], place: int) -> None:
        """Print all of one dead letter: a page for people, else a line of JSON."""
        if not self.for_people:
            print_line(as_json(record))
            return
        title = f"{place}. {record['job_id']}: {record['code']}"
        facts = {
            "failed at": record["failed_at"] or "unknown",
            "sent by": " ".join(filter(None, (record["user_id"], record["app_id"]))) or "unknown",
            "reason": record["reason"],
        }
        print_page(self.terminal, record, title, facts)


def print_page(terminal: Terminal, record: Mapping[str, Any], title: str, facts: Mapping[str, str]) -> None:
    """Print a message for people: a title, facts, then properties, headers and body of its record.

    Lines of the body are as they are, so that they can be copied; what else is long is broken between words.
    """

    def line(text: str, style: str = "") -> None:
        terminal.print(one_line(text, style), soft_wrap=True)

    plain = msgspec.json.decode(as_json(record))
    line(title, "bold")
    terminal.print(named_values(facts))
    for part in ("properties", "headers"):
        line(part, "bold")
        shown = {
            f"  {name}": value if isinstance(value, str) else msgspec.json.encode(value).decode()
            for name, value in plain[part].items()
        }
        terminal.print(named_values(shown))
    line("body", "bold")
    for each in _body_lines(record):
        line(f"  {each}")
    terminal.print()


def letters(count: int) -> str:
    """Write a number of dead letters: `1 letter`, `2 letters`."""
    return "1 letter" if count == 1 else f"{count} letters"


def _outline(letter: DeadLetter) -> dict[str, Any]:
    return {
        "job_id": letter.job.job_id,
        "code": letter.code,
        "reason": letter.reason,
        "failed_at": timestamp(letter.failed_at),
        "replays": letter.job.replays,
        **sender_of(letter.job.producer),
    }


def _group_record(group: Group) -> dict[str, Any]:
    return {
        "code": group.code,
        "user_id": group.user_id or None,
        "app_id": group.app_id or None,
        "reason": group.pattern,
        "count": group.count,
        "oldest": timestamp(group.oldest),
        "newest": timestamp(group.newest),
    }


def time_of(moment: datetime | None, part: slice = slice(None)) -> str:
    """Write a time in UTC for a table, to the second, or a part of that; `unknown` where there is none."""
    return rfc3339(moment)[:19].replace("T", " ")[part] if moment else "unknown"


def _body_lines(record: Mapping[str, Any]) -> list[str]:
    """Return a body for people: JSON indented, other text as it is, else the first KiB as hexadecimal digits."""
    if "body" not in record:
        raw = msgspec.convert(record["body_base64"], bytes)
        digits = raw[:_SHOWN_BYTES].hex(" ", -4)
        return [f"{len(raw)} bytes, not UTF-8:", digits + (" …" if len(raw) > _SHOWN_BYTES else "")]
    body: str = record["body"]
    try:
        # Indented as text: decoding would lose repeated keys and the spelling of numbers.
        msgspec.json.decode(body, type=msgspec.Raw)
        return msgspec.json.format(body, indent=2).splitlines()
    except (msgspec.DecodeError, RecursionError):
        return body.splitlines() or ["(empty)"]


@contextmanager
def _progress(browser: Browser, *, hidden: bool) -> Iterator[Callable[[], object]]:
    """Show how much of the queue was read, on standard error and only where that is a terminal."""
    console = Terminal(stderr=True)
    columns = (TextColumn("looking"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(
        *columns, console=console, transient=True, disable=hidden or not console.is_terminal
    ) as progress:
        task = progress.add_task("", total=browser.total)
        yield lambda: progress.advance(task)
