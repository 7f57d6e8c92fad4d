"""What `undelivered list`, `show`, `send` and `drop` do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import typer

from worker.broker.admin.dead_letter import as_json, timestamp
from worker.broker.admin.dead_letters import Browser, browse
from worker.broker.admin.parked import Parked, read_parked, record_of
from worker.broker.delivery import own_users
from worker.broker.outbox import SILENCE
from worker.broker.publisher import Publisher
from worker.broker.topology import Topology, topology_of
from worker.cli.common import note, print_line
from worker.cli.dead.output import print_page, time_of
from worker.cli.dropping import drop_messages
from worker.cli.tables import add_row, table
from worker.cli.terminal import Terminal
from worker.common.callbacks import always
from worker.common.tasks import cancel, start
from worker.contract.errors import BrokerError
from worker.contract.message import Delivery
from worker.observability.log import build_log
from worker.settings import Scrubber, Settings

_Choose = Callable[[Browser], AsyncIterator[tuple[Delivery, Parked]]]


@dataclass(frozen=True)
class Undelivered:
    """What an `undelivered` command works on. `for_people` is false in a pipe and with `--json`."""

    settings: Settings
    job_ids: frozenset[str]
    routing_keys: frozenset[str]
    limit: int | None
    for_people: bool
    terminal: Terminal = field(default_factory=Terminal)

    @property
    def topology(self) -> Topology:
        return topology_of(self.settings.broker)

    @property
    def queue(self) -> str:
        return self.topology.undelivered

    @property
    def name(self) -> str:
        """The name of the command's connections, which the broker shows."""
        return f"{self.settings.worker.name} undelivered"

    def require_conditions(self, *, everything: bool) -> None:
        """Require either conditions or `--all`, so that nobody sends or drops the whole queue by mistake."""
        if everything and (self.job_ids or self.routing_keys):
            raise typer.BadParameter("--all stands alone: leave it away, or the options that select")
        if not everything and not (self.job_ids or self.routing_keys):
            raise typer.BadParameter("say which results: job ids, --routing-key, or --all")

    async def selected(self, browser: Browser) -> AsyncIterator[tuple[Delivery, Parked]]:
        """Yield the selected results, at most `limit`, and note at the end what was not found."""
        found, missing, users = 0, set(self.job_ids), own_users(self.settings.broker.urls)
        async for delivery in browser.deliveries():
            parked = read_parked(delivery, self.topology.results, users)
            if self._matches(parked):
                found += 1
                missing.discard(parked.job_id)
                yield delivery, parked
            if self.limit is not None and found >= self.limit:
                return
        if not browser.total:
            note(f"{self.queue} is empty")
        elif missing:
            note(f"not in {self.queue}: {', '.join(sorted(missing))}")
        if browser.seen < browser.total:
            note(f"{browser.total - browser.seen} of {browser.total} did not come: somebody else holds them")

    async def sendable(self, browser: Browser) -> AsyncIterator[tuple[Delivery, Parked]]:
        """Yield those of the selected that can be sent, and note at the end how many can't."""
        foreign = 0
        async for delivery, parked in self.selected(browser):
            if parked.message is None:
                foreign += 1
            else:
                yield delivery, parked
        if foreign:
            note(f"no results of this worker, which stay in {self.queue}: {foreign}")

    def _matches(self, parked: Parked) -> bool:
        return (not self.job_ids or parked.job_id in self.job_ids) and (
            not self.routing_keys or parked.routing_key in self.routing_keys
        )


@dataclass
class _Group:
    count: int = 0
    oldest: datetime | None = None
    newest: datetime | None = None

    def add(self, moment: datetime | None) -> None:
        self.count += 1
        if moment is not None:
            self.oldest = min(self.oldest or moment, moment)
            self.newest = max(self.newest or moment, moment)


async def list_groups(chosen: Undelivered) -> None:
    """Print how many results of each routing key are parked, and since when."""
    groups: dict[str, _Group] = {}
    async with browse(chosen.settings.broker, chosen.queue, name=chosen.name) as browser:
        async for _, parked in chosen.selected(browser):
            groups.setdefault(parked.routing_key, _Group()).add(parked.completed_at)
    _print_groups(chosen, groups, f"{chosen.queue}: {results(browser.seen)}")


async def show_results(chosen: Undelivered) -> None:
    """Print the selected results in full."""
    place = 0
    async with browse(chosen.settings.broker, chosen.queue, name=chosen.name) as browser:
        async for delivery, parked in chosen.selected(browser):
            place += 1
            record = record_of(delivery, parked)
            if chosen.for_people:
                title = f"{place}. {parked.job_id or 'no job id'}: {parked.routing_key}"
                completed = {"completed at": time_of(parked.completed_at)}
                print_page(chosen.terminal, record, title, completed)
            else:
                print_line(as_json(record))


async def send_results(chosen: Undelivered, *, dry_run: bool) -> None:
    """Publish the selected results, one after the other; exit with status 1 where one was not taken."""
    if dry_run:
        await _rehearse(chosen, "sent", chosen.sendable)
        return
    broker = chosen.settings.broker
    log = build_log(
        chosen.settings.log.model_copy(update={"level": "error"}),
        worker=chosen.settings.worker.name,
        hide=Scrubber(chosen.settings),
    )
    publisher = Publisher(broker, chosen.topology, log, worker=chosen.name)
    link = start(publisher.link.run())
    sent, closed = 0, dict[str, str]()
    try:
        async with browse(broker, chosen.queue, name=chosen.name) as browser:
            async for delivery, parked in chosen.sendable(browser):
                if link.done():
                    link.result()
                if parked.routing_key in closed:
                    continue
                assert parked.message is not None  # noqa: S101 - it is sendable
                try:
                    await publisher.publish(parked.message, always, silence=SILENCE, alone=True)
                except BrokerError as error:
                    closed[parked.routing_key] = str(error)
                    continue
                await browser.acknowledge(delivery.tag)
                sent += 1
            await browser.flush()
    finally:
        await cancel(link)
        note(f"sent {results(sent)}; all others were left in {chosen.queue}")
    for key, why in closed.items():
        note(f"not taken: {key}: {why}")
    if closed:
        raise typer.Exit(1)


async def drop_results(chosen: Undelivered, *, output: Path | None, ask: bool, dry_run: bool) -> None:
    """Take the selected results off the queue for good; raises as `drop_messages`."""
    if dry_run:
        await _rehearse(chosen, "dropped", chosen.selected)
        return
    async with browse(chosen.settings.broker, chosen.queue, name=chosen.name) as browser:
        records = (
            (delivery.tag, record_of(delivery, parked)) async for delivery, parked in chosen.selected(browser)
        )
        await drop_messages(browser, records, output=output, ask=ask, queue=chosen.queue, counted=results)


async def _rehearse(chosen: Undelivered, action: str, choose: _Choose) -> None:
    groups: dict[str, _Group] = {}
    async with browse(chosen.settings.broker, chosen.queue, name=chosen.name) as browser:
        async for _, parked in choose(browser):
            groups.setdefault(parked.routing_key, _Group()).add(parked.completed_at)
    _print_groups(chosen, groups, f"{chosen.queue}: what would be {action}")
    note(f"{results(sum(group.count for group in groups.values()))} would be {action}; nothing was changed")


def _print_groups(chosen: Undelivered, groups: dict[str, _Group], title: str) -> None:
    ordered = sorted(groups.items(), key=lambda item: (-item[1].count, item[0]))
    if not chosen.for_people:
        for key, group in ordered:
            line = {
                "routing_key": key,
                "count": group.count,
                "oldest": timestamp(group.oldest),
                "newest": timestamp(group.newest),
            }
            print_line(as_json(line))
    elif ordered:
        shown = table("count", "routing key", "oldest", "newest", title=f"{title}; times in UTC")
        shown.columns[0].justify = "right"
        for key, group in ordered:
            add_row(shown, str(group.count), key, time_of(group.oldest), time_of(group.newest))
        chosen.terminal.print(shown)


def results(count: int) -> str:
    """Write a number of results: `1 result`, `2 results`."""
    return "1 result" if count == 1 else f"{count} results"
