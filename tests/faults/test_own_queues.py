"""Fault row 20: each queue of the worker's own refuses, or is deleted. No job waits in its place for it, or is lost."""

from __future__ import annotations

from functools import partial
from itertools import count as numbers
from typing import Any

import pytest

from tests.faults.rig.report import Report
from tests.faults.rig.scene import Scene, staged
from tests.support.waiting import until
from worker.sandbox.node import Node
from worker.simulator.behaviour import Rule

ODD = "odd"


async def want_dead_letters(scene: Scene, count: int, name: str = "bad") -> None:
    await scene.publish_doomed("invalid_job", name, count, {"account_number": 5})


async def want_retries(scene: Scene, count: int) -> None:
    """Have the first exchange of each job fail, which with one attempt a delivery is a retry copy.

    Of fewer jobs than there are sessions: each ends one, and the pool takes its time to replace them.
    """
    scene.rule(Rule(f"{ODD}*", "error", limit=1))
    for number in range(min(count, 24)):
        await scene.publish(f"{ODD}-{number}", 1, {"account_number": f"{ODD}|{number}"})


async def want_parking(scene: Scene, count: int, name: str = "unbound") -> None:
    await scene.publish(name, count, {"account_number": "unbound|1", "route": "unbound"})
    await until(partial(scene.said, "job.succeeded", parked=True))


WANTS = {"lcm.outcome.dead": want_dead_letters, "lcm.outcome.undelivered": want_parking}
# However many exchanges fail, it is no outage.
CALM: dict[str, Any] = {"outage.failures": 1000}
QUEUES = {**WANTS, "lcm.outcome.retry.1s": want_retries}


@pytest.mark.parametrize("queue", QUEUES)
@pytest.mark.timeout_s(600)
async def test_a_full_queue_of_ours(queue: str, full: bool, broker: Node, vhost: str, faults: Report) -> None:
    """Good jobs go on beside it, but where retry copies are refused: then nothing is taken, until there is room."""
    with faults.row("20", f"{queue} full") as row:
        async with staged(broker, vhost, full=full, **CALM) as scene:
            await scene.policy(queue, max_length=1)
            row.inject("full")
            await QUEUES[queue](scene, 200 if full else 60)
            if "retry" in queue:
                await until(partial(scene.said, "worker.paused", reason="copies_refused"))
            else:
                await scene.do_good(0, 1000 if full else 100)
                more = numbers()

                async def is_deferred() -> bool:
                    # RabbitMQ notices that a queue is full some time after it is.
                    if not scene.said("job.deferred"):
                        await WANTS[queue](scene, 1, f"more-{next(more)}")
                    return scene.said("job.deferred")

                await until(is_deferred)
            await scene.policy(queue)
            await scene.do_good(1000, 100)
            await scene.send_parked()
            await scene.settled(row)


@pytest.mark.parametrize("queue", QUEUES)
@pytest.mark.timeout_s(600)
async def test_a_deleted_queue_of_ours(
    queue: str, full: bool, broker: Node, vhost: str, faults: Report
) -> None:
    """It is declared again by the first message that it does not take."""
    with faults.row("20", f"{queue} deleted") as row:
        async with staged(broker, vhost, full=full, **CALM) as scene:
            for turn in range(5 if full else 1):
                await scene.channel.queue_delete(queue)
                row.inject("deleted")
                await scene.do_good(100 * turn, 100)
            await QUEUES[queue](scene, 200 if full else 60)
            await scene.send_parked()
            await scene.settled(row)
