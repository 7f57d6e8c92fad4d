"""Time that is added to LCM's own answer, where jobs come at half the rate that the sessions could take."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from tests.benchmarks.collector import Collector
from tests.benchmarks.figures import Cell, Samples, Table, interleaved, percentile
from tests.benchmarks.jobs import Batch, Books, Result
from tests.benchmarks.lcm.control import lcm
from tests.benchmarks.programs import BARE, FLOOR, TITLES, WORKER, program
from tests.benchmarks.progress import Progress
from tests.benchmarks.scale import Scale
from tests.benchmarks.stage import Stage

SECTION = "latency"
_ROUNDS = 3
_SESSIONS = 32
_DELAY = 0.05
_LOAD = 0.5
_PERCENTS = (50, 99)
_ON_THE_WAY = "from publishing the job to its result"
_INSIDE = "from the delivery to the end of its line in the log"
_INSIDE_UNCONFIRMED = "the same without waiting for the broker's confirm"


class _JobLine(msgspec.Struct):
    event: str = ""
    account: str = ""
    duration_ms: float = 0.0
    publish_ms: float = 0.0


@dataclass
class _Round:
    """Milliseconds beyond LCM's own, of each job, by what is measured."""

    added: dict[str, list[float]] = field(default_factory=dict)


async def measure(stage: Stage, scale: Scale, progress: Progress) -> list[Table]:
    """Return a table of what programs add, as seen from outside, and for the worker from inside as well."""
    found: dict[tuple[str, str], list[list[float]]] = {}
    for number, name in interleaved((WORKER, BARE, FLOOR), _ROUNDS):
        progress.doing(f"latency: round {number + 1} of {_ROUNDS}, {TITLES[name]}")
        for what, values in (await _one_round(stage, name, scale)).added.items():
            found.setdefault((name, what), []).append(values)
    return [
        Table(
            SECTION,
            "Time added to LCM's own answer at half load",
            ("program", "measured", "median, ms", "99th percentile, ms"),
            tuple((TITLES[name], what, *_cells(rounds)) for (name, what), rounds in found.items()),
            f"{_SESSIONS} sessions, LCM taking {_DELAY * 1000:g} ms, {_LOAD * _SESSIONS / _DELAY:g} jobs a second, "
            "evenly spaced. LCM's own time is taken off job by job, as it has recorded it. The whole way has two "
            "quorum queues in it. Medians of "
            f"{_ROUNDS} rounds of {scale.paced:g} s (least to largest).",
        )
    ]


async def _one_round(stage: Stage, name: str, scale: Scale) -> _Round:
    warmup = stage.batch(scale.warmup)
    batch = stage.batch(int(_LOAD * _SESSIONS / _DELAY * scale.paced))
    books = Books(batch)
    async with lcm(delay=_DELAY, record=True) as peer, stage.collecting() as results:
        async with program(name, stage.url, peer.url, sessions=_SESSIONS, keep=True) as process:
            await process.ready()
            await stage.put(warmup.bodies())
            await process.alive_until(results.complete(Books(warmup)))
            results.forget()
            sent = await _publish_paced(stage, batch, _LOAD * _SESSIONS / _DELAY)
            await process.alive_until(results.complete(books))
        record = await peer.record()
    await stage.renew()
    stage.repeats += books.repeats
    found = _Round({_ON_THE_WAY: _whole_way(results, sent, record)})
    if name == WORKER:
        lines = _job_lines(process.lines, set(record.keys() & sent.keys()))
        found.added[_INSIDE] = [line.duration_ms - 1000 * record[line.account] for line in lines]
        found.added[_INSIDE_UNCONFIRMED] = [
            line.duration_ms - line.publish_ms - 1000 * record[line.account] for line in lines
        ]
    return found


async def _publish_paced(stage: Stage, batch: Batch, rate: float) -> dict[str, float]:
    """Publish jobs at an even pace, however long the broker takes for each; return when, by account."""
    sent: dict[str, float] = {}
    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for index, body in enumerate(batch.bodies()):
            await asyncio.sleep(began + index / rate - time.monotonic())
            sent[batch.account(batch.first + index)] = time.monotonic()
            group.create_task(stage.put_one(body))
    return sent


def _whole_way(results: Collector, sent: dict[str, float], record: dict[str, float]) -> list[float]:
    decoded = [msgspec.json.decode(body, type=Result) for body in results.bodies]
    return [
        1000 * (came - sent[result.account_number] - record[result.account_number])
        for result, came in zip(decoded, results.times, strict=True)
    ]


def _job_lines(lines: Sequence[bytes], accounts: set[str]) -> list[_JobLine]:
    read = [msgspec.json.decode(line, type=_JobLine) for line in lines if b'"job.succeeded"' in line]
    return [line for line in read if line.account in accounts]


def _cells(rounds: Sequence[Sequence[float]]) -> tuple[Cell, ...]:
    return tuple(
        Samples(tuple(percentile(values, percent) for values in rounds), digits=1) for percent in _PERCENTS
    )
