"""Steady work: workers have more to do than they can, and LCM counts what comes of it in windows of time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from itertools import pairwise

from tests.benchmarks.collector import Collector
from tests.benchmarks.figures import Samples
from tests.benchmarks.jobs import Books
from tests.benchmarks.lcm.control import Peer, lcm
from tests.benchmarks.lcm.peer import Counts
from tests.benchmarks.processes import Process, cpu_seconds
from tests.benchmarks.programs import WORKER, program
from tests.benchmarks.scale import Scale
from tests.benchmarks.stage import Stage
from tests.support.patience import PATIENCE
from tests.support.waiting import until

_FASTEST = 5000  # jobs a second, more than all processes of one machine do
_TO_START = 8.0
_TO_OPEN = 5.0
_SETTLED_AFTER = 1.0


class RanDry(Exception):
    """The jobs were all done before the last window was over: `_FASTEST` is too low."""


class JobsLost(Exception):
    """A job has no result and isn't in its queue either."""


@dataclass(frozen=True)
class Steady:
    """What windows of steady work showed.

    Attributes:
        busy: the share of the time of all sessions, in percent, in which LCM was at a request of theirs.
        rate: LCM's replies a second.
        cpu_us: the CPU time of all workers for a reply.
        cores: how many CPUs they kept busy.
    """

    busy: Samples
    rate: Samples
    cpu_us: Samples
    cores: Samples


@dataclass(frozen=True)
class _Mark:
    counts: Counts
    cpu: float


async def steady(
    stage: Stage, scale: Scale, *, delay: float, sessions: int, workers: int = 1, name: str = WORKER
) -> Steady:
    """Measure so many workers, or other programs, each with so many sessions, against an LCM with such a delay.

    Jobs that weren't begun in the end are dropped; the results of all others are checked.
    """
    seconds = _TO_START + _settling(delay) + scale.windows * scale.window
    fastest = min(_FASTEST, workers * sessions / delay) if delay else _FASTEST
    batch = await stage.publish(int(fastest * seconds))
    async with lcm(delay=delay) as peer, stage.collecting() as results:
        async with AsyncExitStack() as stack:
            running = [
                await stack.enter_async_context(program(name, stage.url, peer.url, sessions=sessions))
                for _ in range(workers)
            ]
            await asyncio.gather(*(each.ready() for each in running))
            await _all_open(peer, workers * sessions)
            await asyncio.sleep(_settling(delay))
            marks = [await _mark(peer, running)]
            for _ in range(scale.windows):
                await asyncio.sleep(scale.window)
                marks.append(await _mark(peer, running))
            if not await stage.left():
                raise RanDry(f"{batch.count} jobs were too few")
        books = Books(batch)
        await _all_told(stage, results, books, drains=name == WORKER)
    stage.repeats += books.repeats
    await stage.renew()
    return _between(marks, workers * sessions)


async def _all_open(peer: Peer, sessions: int) -> None:
    """Wait until all sessions are open; workers that are slower than LCM need not open all."""

    async def open_() -> bool:
        return (await peer.counts()).sessions >= sessions

    with suppress(TimeoutError):
        await until(open_, deadline=_TO_OPEN / PATIENCE)


async def _all_told(stage: Stage, results: Collector, books: Books, *, drains: bool) -> None:
    """Wait until each job has its result or is in its queue again: both, where a program just ends. Raises JobsLost."""
    left = 0

    async def told() -> bool:
        nonlocal left
        left = await stage.left()
        results.enter(books)
        return books.missing == left or (books.missing < left and not drains)

    try:
        await until(told)
    except TimeoutError:
        raise JobsLost(f"{books.missing} jobs have no result, and {left} are left") from None


async def _mark(peer: Peer, running: Sequence[Process]) -> _Mark:
    return _Mark(await peer.counts(), sum(cpu_seconds(each.pid) for each in running))


def _settling(delay: float) -> float:
    return max(_SETTLED_AFTER, 3 * delay)


def _between(marks: Sequence[_Mark], sessions: int) -> Steady:
    pairs = [(after.counts.at - before.counts.at, before, after) for before, after in pairwise(marks)]
    replies = [after.counts.replies - before.counts.replies for _, before, after in pairs]
    cpu = [after.cpu - before.cpu for _, before, after in pairs]
    return Steady(
        busy=Samples(
            tuple(
                100 * (after.counts.working - before.counts.working) / seconds / sessions
                for seconds, before, after in pairs
            ),
            "%",
            digits=1,
        ),
        rate=Samples(tuple(count / pair[0] for count, pair in zip(replies, pairs, strict=True))),
        cpu_us=Samples(tuple(1e6 * used / count for used, count in zip(cpu, replies, strict=True))),
        cores=Samples(tuple(used / pair[0] for used, pair in zip(cpu, pairs, strict=True)), digits=2),
    )
