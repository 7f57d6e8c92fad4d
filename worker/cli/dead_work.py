"""What `dead list`, `show`, `replay` and `drop` do with a look at the queue."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO

from worker.broker.dead_letters import Look, looking
from worker.broker.replayer import Replayer
from worker.cli.dead_desk import Desk, letters
from worker.dead_letter import Letter, Tally, as_json, record_of
from worker.message import Delivery
from worker.settings import secrets_of
from worker.telemetry import build_log


async def list_groups(desk: Desk) -> None:
    """Show what is there, grouped by code and shape of the reason."""
    tally = Tally()
    async with looking(desk.settings.broker, name=desk.name) as look:
        async for _, letter in desk.matching(look):
            tally.add(letter)
    groups = tally.groups
    if groups or not desk.for_people:
        desk.tell_groups(groups, f"{desk.queue}: {letters(sum(group.count for group in groups))}")


async def show_letters(desk: Desk, index: int | None) -> None:
    """Show letters in full; with `index` the one that has this place among those that match, counted from 1."""
    place = 0
    async with looking(desk.settings.broker, name=desk.name) as look:
        async for delivery, letter in desk.matching(look, prints=True):
            place += 1
            if index is not None and place < index:
                continue
            record = record_of(delivery, letter)
            desk.tell_record(record, place)
    if index is not None and 0 < place < index:
        desk.say(f"only {letters(place)} match: there is no number {index}")


async def replay_letters(desk: Desk, *, dry_run: bool) -> None:
    """Send letters back to work."""
    if dry_run:
        await _rehearse(desk, "replayed")
        return
    log = build_log(
        desk.settings.log.model_copy(update={"level": "warning"}),
        worker=desk.settings.worker.name,
        secrets=secrets_of(desk.settings),
    )
    async with looking(desk.settings.broker, name=desk.name) as look:
        replayer = Replayer(look, desk.settings.broker, log, name=desk.name)
        try:
            async with replayer.working():
                async for delivery, letter in desk.matching(look, prints=not desk.for_people):
                    await replayer.replay(delivery, letter, lambda letter=letter: desk.tell_letter(letter))  # type: ignore[misc]
        finally:
            desk.say(f"replayed {letters(replayer.done)}; all others are still in {desk.queue}")


async def drop_letters(desk: Desk, *, output: Path | None, ask: bool, dry_run: bool) -> None:
    """Take letters off for good, once all of them are saved in `output` and the operator has agreed.

    They are held from the first look on: what is dropped is exactly what was counted.
    """
    if dry_run:
        await _rehearse(desk, "dropped")
        return
    async with looking(desk.settings.broker, name=desk.name) as look:
        with _saving(output) as save:
            held: list[int] = []
            async for delivery, letter in desk.matching(look):
                save(delivery, letter)
                held.append(delivery.tag)
            if not held:
                return
            if ask and not await _agreed(desk, len(held)):
                raise Declined
        await _drop(desk, look, held)


async def _drop(desk: Desk, look: Look, held: list[int]) -> None:
    done, certain = 0, False
    try:
        for tag in held:
            await look.acknowledge(tag)
            done += 1
    finally:
        # Interrupted, too, it waits for the broker to have read what was sent: then the number is true.
        try:
            await look.settled()
            certain = True
        finally:
            how = "dropped" if certain else "dropped at most"
            desk.say(f"{how} {letters(done)}; all others are still in {desk.queue}")


class Declined(Exception):
    """The operator did not agree; nothing was dropped."""


@contextmanager
def _saving(path: Path | None) -> Iterator[Callable[[Delivery, Letter], None]]:
    """Give what saves a letter as a line of a new file, which is on the disk at the end, or gone after an error."""
    if path is None:
        yield lambda _delivery, _letter: None
        return
    # Only for the owner, since account numbers are in it; never over what another run saved.
    with open(path, "xb", opener=partial(os.open, mode=0o600)) as file:
        try:
            yield lambda delivery, letter: _write(file, as_json(record_of(delivery, letter)))
            file.flush()
            os.fsync(file.fileno())
            if not file.tell():
                path.unlink()
        except BaseException:
            path.unlink(missing_ok=True)
            raise


def _write(file: BinaryIO, line: bytes) -> None:
    file.write(line + b"\n")


async def _rehearse(desk: Desk, what: str) -> None:
    tally = Tally()
    count = 0
    async with looking(desk.settings.broker, name=desk.name) as look:
        async for _, letter in desk.matching(look, prints=not desk.for_people):
            count += 1
            tally.add(letter)
            desk.tell_letter(letter)
    if count and desk.for_people:
        desk.tell_groups(tally.groups, f"{desk.queue}: what would be {what}")
    desk.say(f"{letters(count)} would be {what}; nothing was changed")


async def _agreed(desk: Desk, count: int) -> bool:
    """Have the operator type the count. Not by `input`, which could not be interrupted."""
    print(
        f"Type {count} to drop {letters(count)} of {desk.queue} for good: ",
        end="",
        file=sys.stderr,
        flush=True,
    )
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), ready.set)
    try:
        await ready.wait()
        return sys.stdin.readline().strip() == str(count)
    finally:
        loop.remove_reader(sys.stdin.fileno())
