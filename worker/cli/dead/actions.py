"""What `dead list`, `show`, `replay` and `drop` do."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from pathlib import Path

from yarl import URL

from worker.broker.admin.dead_letter import DeadLetter, record_of
from worker.broker.admin.dead_letters import browse
from worker.broker.admin.replayer import Replayer
from worker.cli.common import note
from worker.cli.dead.output import DeadLetterConsole, letters
from worker.cli.dead.selection import Tally
from worker.cli.dropping import drop_messages
from worker.common.rate import Rate
from worker.contract.errors import MessageTooLarge
from worker.observability.log import build_log
from worker.settings import Scrubber


async def list_groups(console: DeadLetterConsole) -> None:
    """Print the selected letters grouped by code and pattern of the reason."""
    tally = Tally()
    async with browse(console.settings.broker, console.queue, name=console.name) as browser:
        async for _, letter in console.selected(browser):
            tally.add(letter)
    groups = tally.groups
    if groups or not console.for_people:
        count = sum(group.count for group in groups)
        console.print_groups(groups, f"{console.queue}: {letters(count)}")


async def show_letters(console: DeadLetterConsole, index: int | None) -> None:
    """Print the selected letters in full, from the one at this place on; places count from 1."""
    place = 0
    async with browse(console.settings.broker, console.queue, name=console.name) as browser:
        async for delivery, letter in console.selected(browser, prints=True):
            place += 1
            if index is not None and place < index:
                continue
            console.print_record(record_of(delivery, letter), place)
    if index is not None and 0 < place < index:
        note(f"only {letters(place)} match: there is no number {index}")


async def replay_letters(console: DeadLetterConsole, *, rate: Rate, dry_run: bool) -> None:
    """Send the selected letters back to the jobs queue, no faster than `rate`."""
    if dry_run:
        await _rehearse(console, "replayed")
        return
    settings = console.settings
    log = build_log(
        settings.log.model_copy(update={"level": "warning"}),
        worker=settings.worker.name,
        hide=Scrubber(settings),
    )
    async with browse(settings.broker, console.queue, name=console.name) as browser:
        replayer = Replayer(browser, settings.broker, log, name=console.name, on_left=_say_left)
        workers_user = own_user = URL(settings.broker.urls[0]).user
        try:
            async with replayer.running():
                async for delivery, letter in console.selected(browser, prints=not console.for_people):
                    if letter.worker is not None:
                        workers_user = delivery.properties.user_id or workers_user
                    if pause := rate.reserve(time.monotonic()):
                        await asyncio.sleep(pause)
                    await replayer.replay(delivery, letter, partial(console.print_letter, letter))
        finally:
            note(f"replayed {letters(replayer.done)}; all others were left in {console.queue}")
            if workers_user != own_user:
                note(
                    f"replayed as user {own_user!r}, but workers believe the replay count of their own user"
                    f" {workers_user!r} only: with broker.url of that user, failed results get new message ids"
                )
        if replayer.left:
            raise MessageTooLarge(f"{letters(replayer.left)} not replayed: too large for the broker")


def _say_left(letter: DeadLetter, error: MessageTooLarge) -> None:
    note(f"job {letter.job.job_id!r} stays in the queue: {error}")


async def drop_letters(console: DeadLetterConsole, *, output: Path | None, ask: bool, dry_run: bool) -> None:
    """Take the selected letters off the queue for good.

    They are saved to `output` first, and with `ask` the operator has to confirm. All are held from the first reading
    on, so that exactly those are dropped that were counted and saved.

    Raises:
        Declined: the operator did not confirm.
        OSError: `output` exists or can't be written.
    """
    if dry_run:
        await _rehearse(console, "dropped")
        return
    async with browse(console.settings.broker, console.queue, name=console.name) as browser:
        records = (
            (delivery.tag, record_of(delivery, letter))
            async for delivery, letter in console.selected(browser)
        )
        await drop_messages(browser, records, output=output, ask=ask, queue=console.queue, counted=letters)


async def _rehearse(console: DeadLetterConsole, action: str) -> None:
    """Print what would be replayed or dropped."""
    tally = Tally()
    count = 0
    async with browse(console.settings.broker, console.queue, name=console.name) as browser:
        async for _, letter in console.selected(browser, prints=not console.for_people):
            count += 1
            tally.add(letter)
            console.print_letter(letter)
    if count and console.for_people:
        console.print_groups(tally.groups, f"{console.queue}: what would be {action}")
    note(f"{letters(count)} would be {action}; nothing was changed")
