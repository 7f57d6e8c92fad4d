"""Dropping messages of a queue for good: saved first, and only once a person has typed how many."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

from worker.broker.admin.dead_letter import as_json
from worker.broker.admin.dead_letters import Browser
from worker.cli.common import note
from worker.common.callbacks import ignore
from worker.common.private_file import private


class Declined(Exception):
    """The operator did not confirm; nothing was dropped."""


@contextmanager
def dropping(output: Path | None, *, asks: bool) -> Iterator[bool]:
    """Give whether to ask first, and turn what goes wrong with that or with `output` into an error of usage."""
    if asks and not sys.stdin.isatty():
        raise typer.BadParameter(
            "nobody can be asked without a terminal; give --yes, or --dry-run to look first"
        )
    try:
        yield asks
    except Declined as declined:
        note("nothing was dropped")
        raise typer.Exit(1) from declined
    except OSError as error:
        if output is None:
            raise
        exists = isinstance(error, FileExistsError)
        why = "exists already; name a new file" if exists else error.strerror or error
        raise typer.BadParameter(f"--output {output}: {why}; nothing was dropped") from error


async def drop_messages(
    browser: Browser,
    records: AsyncIterator[tuple[int, Mapping[str, Any]]],
    *,
    output: Path | None,
    ask: bool,
    queue: str,
    counted: Callable[[int], str],
) -> None:
    """Take messages off a queue for good; `records` are their delivery tags with what is saved of them to `output`.

    All are held from the first reading on, so that exactly those are dropped that were counted and saved.

    Raises:
        Declined: the operator did not confirm.
        OSError: `output` exists or can't be written.
    """
    with _saving(output) as save:
        tags: list[int] = []
        async for tag, record in records:
            save(record)
            tags.append(tag)
        if not tags:
            return
        if ask and not await _confirmed(len(tags), f"{counted(len(tags))} of {queue}"):
            raise Declined
    done, certain = 0, False
    try:
        for tag in tags:
            await browser.acknowledge(tag)
            done += 1
    finally:
        # When interrupted, too: only after a flush is the number certain.
        try:
            await browser.flush()
            certain = True
        finally:
            how = "dropped" if certain else "dropped at most"
            note(f"{how} {counted(done)}; all others were left in {queue}")


@contextmanager
def _saving(path: Path | None) -> Iterator[Callable[[Mapping[str, Any]], object]]:
    """Give a function that saves a record as a line of a new file; without a path it does nothing.

    At the end the file is on disk; after an error, or without any record, it is removed.
    """
    if path is None:
        yield ignore
        return
    # It holds account numbers; and it never goes over an existing file.
    with open(path, "xb", opener=private) as file:
        try:
            yield lambda record: file.write(as_json(record) + b"\n")
            file.flush()
            os.fsync(file.fileno())
            if not file.tell():
                path.unlink()
        except BaseException:
            path.unlink(missing_ok=True)
            raise


async def _confirmed(count: int, what: str) -> bool:
    """Ask the operator to type the count. Not by `input`, which blocks the event loop and its signal handlers."""
    print(f"Type {count} to drop {what} for good: ", end="", file=sys.stderr, flush=True)
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), ready.set)
    try:
        await ready.wait()
        return sys.stdin.readline().strip() == str(count)
    finally:
        loop.remove_reader(sys.stdin.fileno())
