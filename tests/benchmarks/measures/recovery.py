"""Recovery: from the return of the broker, or of LCM, to the first result."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from tests.benchmarks.figures import Samples, Table
from tests.benchmarks.jobs import Batch, Books
from tests.benchmarks.lcm.control import Peer, start_lcm
from tests.benchmarks.programs import WORKER, program
from tests.benchmarks.progress import Progress
from tests.benchmarks.scale import Scale
from tests.benchmarks.stage import Stage

SECTION = "recovery"
_DELAY = 0.05
_JOBS = 3000
_DONE = b'"job.succeeded"'

Outage = Callable[[Stage, Peer, Scale], Awaitable[tuple[Peer, float]]]
"""Takes something away and brings it back; returns LCM as it is then, and when what was away was back."""


async def measure(stage: Stage, scale: Scale, progress: Progress) -> list[Table]:
    """Return a table of both outages."""
    rows = []
    outages: tuple[tuple[str, Outage], ...] = (("the broker", _restart_broker), ("LCM", _restart_lcm))
    for title, outage in outages:
        seconds = []
        for number in range(scale.recoveries):
            progress.doing(f"recovery of {title}: {number + 1} of {scale.recoveries}")
            seconds.append(await _recovery(stage, scale, outage))
        rows.append((title, Samples(tuple(seconds), digits=2)))
    return [
        Table(
            SECTION,
            "Recovery",
            ("after the return of", "first result, s"),
            tuple(rows),
            f"A worker with jobs in hand and more in the queue; medians of {scale.recoveries} (least to largest). "
            "The broker is back when it answers on its port; a result counts when the broker has confirmed it. LCM "
            f"was away for {scale.away:g} s.",
        )
    ]


async def _recovery(stage: Stage, scale: Scale, outage: Outage) -> float:
    batch = await stage.publish(_JOBS)
    peer = await start_lcm(delay=_DELAY)
    try:
        async with program(WORKER, stage.url, peer.url) as process:
            await process.alive_until(process.says(_DONE))
            await stage.close()
            peer, back = await outage(stage, peer, scale)
            first = await process.alive_until(process.says(_DONE))
            await stage.connect()
            await process.alive_until(_collect(stage, batch))
    finally:
        await peer.stop()
    await stage.renew()
    return first - back


async def _collect(stage: Stage, batch: Batch) -> None:
    """Check all results; not before the outage, or a collector would lose what the broker has on the way to it."""
    books = Books(batch)
    async with stage.collecting() as results:
        await results.complete(books)


async def _restart_broker(stage: Stage, peer: Peer, _: Scale) -> tuple[Peer, float]:
    await stage.node.restart()
    return peer, time.monotonic()


async def _restart_lcm(_: Stage, peer: Peer, scale: Scale) -> tuple[Peer, float]:
    await peer.stop()
    await asyncio.sleep(scale.away)
    return await start_lcm(delay=_DELAY, port=peer.port), time.monotonic()
