"""What one producer, account, result consumer, operator or client does that is not to be felt by the others.

Each neighbour is a context: on entry it does its harm, at the end it stops, so that whatever waited for that can end.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from functools import partial

from aiormq.exceptions import DeliveryError

from tests.faults.rig.scene import OWN, RESULTS, Scene
from tests.support.waiting import until
from worker.simulator.behaviour import Rule

DEAD = "lcm.outcome.dead"
_REFUSED, _SILENT, _FLOOD = "refused", "silent", "flood"


@asynccontextmanager
async def large_headers(scene: Scene) -> AsyncIterator[None]:
    """Send bad jobs whose headers leave no room in a frame for those of a dead letter."""
    count = 1000 if scene.full else 100
    await scene.publish_doomed(
        "invalid_job", "headers", count, {"account_number": 5}, headers={"filler": "x" * 130_900}
    )
    yield
    await until(partial(scene.said, "job.failed", count, error="invalid_job"), deadline=120)


@asynccontextmanager
async def large_bodies(scene: Scene) -> AsyncIterator[None]:
    """Send jobs of 15 MB: RabbitMQ 4 takes no more than 16."""
    count = 32 if scene.full else 8
    await scene.publish_doomed("invalid_job", "bodies", count, {}, body=b"{" + b" " * 15_000_000 + b"}")
    yield


@asynccontextmanager
async def refused_jobs(scene: Scene) -> AsyncIterator[None]:
    """Send jobs that LCM refuses, until it takes them."""
    scene.rule(Rule(f"{_REFUSED}*", "refuse"))
    count = 1000 if scene.full else 250
    ids = await scene.publish(_REFUSED, count, {"account_number": _REFUSED}, app_id="crm")
    scene.doomed.update(dict.fromkeys(ids, "lcm_rejected"))
    yield
    scene.repeal(f"{_REFUSED}*")


@asynccontextmanager
async def forged_headers(scene: Scene) -> AsyncIterator[None]:
    """Send jobs that say of themselves that they came back nineteen times, from a producer with no user of its own."""
    forged = {"outcome-returns": 19, "outcome-retries": 1, "x-delivery-count": 19}
    await scene.publish("forged", 200 if scene.full else 20, {"account_number": "forged|1"}, headers=forged)
    yield


@asynccontextmanager
async def silent_account(scene: Scene) -> AsyncIterator[None]:
    """Send jobs for an account that LCM does not answer, until it does."""
    scene.rule(Rule(_SILENT, "silence"))
    ids = await scene.publish(_SILENT, 300, {"account_number": _SILENT})
    scene.doomed.update(dict.fromkeys(ids, "timeout"))
    yield
    scene.repeal(_SILENT)


@asynccontextmanager
async def flooding_lcm(scene: Scene) -> AsyncIterator[None]:
    """Have LCM talk without end in place of the reply for one account."""
    scene.rule(Rule(_FLOOD, "flood"))
    await scene.publish_doomed("connection_lost", _FLOOD, 3, {"account_number": _FLOOD})
    yield
    await until(
        lambda: scene.simulator.record and any(each.fault == _FLOOD for each in scene.simulator.record)
    )
    scene.repeal(_FLOOD)


@asynccontextmanager
async def unbound_route(scene: Scene) -> AsyncIterator[None]:
    """Ask for results by a route that no queue is bound to, until one is."""
    await scene.publish(
        "unbound", 300 if scene.full else 100, {"account_number": "unbound|1", "route": "unbound"}
    )
    yield
    await scene.channel.queue_bind(OWN, RESULTS, "result.*.unbound")


@asynccontextmanager
async def full_queue(scene: Scene) -> AsyncIterator[None]:
    """Ask for results by a route that has a full queue beside one that takes them, until it is deleted."""
    queue = "dialer.full"
    await scene.channel.queue_declare(
        queue,
        durable=True,
        arguments={"x-queue-type": "quorum", "x-max-length": 1, "x-overflow": "reject-publish"},
    )
    with suppress(DeliveryError):  # once it is full
        for _ in range(10):
            await scene.channel.basic_publish(b"", routing_key=queue)
    for bound in queue, OWN:
        await scene.channel.queue_bind(bound, RESULTS, "result.*.full")
    await scene.publish("full", 300 if scene.full else 100, {"account_number": "full|1", "route": "full"})
    yield
    await scene.channel.queue_delete(queue)


@asynccontextmanager
async def full_dead_letters(scene: Scene) -> AsyncIterator[None]:
    """Have no room for dead letters, and send jobs that want to go there, until there is."""
    await scene.policy(DEAD, max_length=1)
    count = 200 if scene.full else 60
    await scene.publish_doomed("invalid_job", "undead", count, {"account_number": 5}, app_id="undead")
    yield
    await scene.policy(DEAD)


@asynccontextmanager
async def stalled_log_reader(scene: Scene) -> AsyncIterator[None]:
    """Leave the worker's log unread for a while."""
    scene.worker.stall_log()
    try:
        yield
    finally:
        scene.worker.read_log()


@asynccontextmanager
async def slow_health_clients(scene: Scene) -> AsyncIterator[None]:
    """Open many connections to the health port, and send half a request on each."""
    async with AsyncExitStack() as stack:
        for _ in range(1000 if scene.full else 100):
            _, writer = await asyncio.open_connection("127.0.0.1", scene.health_port)
            stack.callback(writer.close)
            writer.write(b"GET /readyz HT")
        yield


Neighbour = Callable[[Scene], AbstractAsyncContextManager[None]]
NEIGHBOURS: dict[str, Neighbour] = {
    "large headers": large_headers,
    "large bodies": large_bodies,
    "refused jobs": refused_jobs,
    "forged headers": forged_headers,
    "silent account": silent_account,
    "flooding LCM": flooding_lcm,
    "unbound route": unbound_route,
    "full queue": full_queue,
    "full dead letters": full_dead_letters,
    "stalled log reader": stalled_log_reader,
    "slow health clients": slow_health_clients,
}
