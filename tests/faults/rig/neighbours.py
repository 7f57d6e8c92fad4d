"""What one producer, account, result consumer, operator or client does that is not to be felt by the others.

Each neighbour is a context: on entry it does its harm, at the end it stops, so that whatever waited for that can end.
Its jobs are in the ledger as all others are; `Scene.doomed` names those that are to fail, with the error code.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import msgspec
from aiormq import spec
from aiormq.abc import AbstractChannel
from aiormq.exceptions import DeliveryError

from tests.faults.rig.ledger import Ledger
from tests.faults.rig.workers import WorkerProcess
from tests.support.waiting import until
from worker.sandbox.node import Node
from worker.simulator.behaviour import Rule
from worker.simulator.server import Simulator

JOBS, RESULTS, DEAD, OWN = "lcm.outcome.jobs", "lcm.outcome.results", "lcm.outcome.dead", "dialer.results"
GOOD_ROUTE = "good"
FLOOD = "flood"
_REFUSED, _SILENT = "refused", "silent"
_IN_FLIGHT = 100  # publishes of a neighbour that wait for their confirm


@dataclass
class Scene:
    """The parts on the stage, how large each harm is, and what is known to fail by it."""

    broker: Node
    url: str
    channel: AbstractChannel
    simulator: Simulator
    worker: WorkerProcess
    ledger: Ledger
    health_port: int
    full: bool
    doomed: dict[str, str] = field(default_factory=dict)

    async def publish(
        self, name: str, count: int, job: Mapping[str, Any], body: bytes = b"", **properties: Any
    ) -> list[str]:
        """Publish `count` equal jobs, apart from their ids, with these properties; return the ids.

        `body` takes the place of the job's own, whose id is then the message's.
        """
        ids = [f"{name}-{n}" for n in range(count)]
        self.ledger.accounts.update(dict.fromkeys(ids, str(job.get("account_number", ""))))
        for start in range(0, count, _IN_FLIGHT):
            await asyncio.gather(
                *(
                    self.channel.basic_publish(
                        body or msgspec.json.encode({"job_id": job_id, **job}),
                        routing_key=JOBS,
                        properties=spec.Basic.Properties(delivery_mode=2, message_id=job_id, **properties),
                    )
                    for job_id in ids[start : start + _IN_FLIGHT]
                )
            )
        return ids

    async def publish_doomed(
        self, code: str, name: str, count: int, job: Mapping[str, Any], **given: Any
    ) -> None:
        """Publish jobs that are to fail with this code."""
        self.doomed.update(dict.fromkeys(await self.publish(name, count, job, **given), code))

    def rule(self, *rules: Rule) -> None:
        """Have LCM treat the accounts of these patterns otherwise."""
        behaviour = self.simulator.behaviour
        self.simulator.behaviour = replace(behaviour, rules=(*rules, *behaviour.rules))

    def repeal(self, *patterns: str) -> None:
        """End such rules."""
        behaviour = self.simulator.behaviour
        kept = tuple(rule for rule in behaviour.rules if rule.pattern not in patterns)
        self.simulator.behaviour = replace(behaviour, rules=kept)

    async def policy(self, queue: str, **definition: object) -> None:
        """Set a policy on a queue, as an operator does; without a definition, take it away."""
        vhost = urlsplit(self.url).path[1:]
        if not definition:
            await self.broker.ctl("clear_policy", "-p", vhost, queue)
            return
        limits = json.dumps({name.replace("_", "-"): value for name, value in definition.items()})
        pattern = "^" + queue.replace(".", "[.]") + "$"
        await self.broker.ctl("set_policy", "-p", vhost, queue, pattern, limits, "--apply-to", "queues")

    def said(self, event: str, times: int = 1, **fields: object) -> bool:
        """Tell whether the worker has logged an event so often, with these fields."""
        return sum(fields.items() <= line.items() for line in self.worker.of(event)) >= times


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
    """Send jobs of 20 MB."""
    count = 24 if scene.full else 8
    await scene.publish_doomed("invalid_job", "bodies", count, {}, body=b"{" + b" " * 20_000_000 + b"}")
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
    scene.rule(Rule(FLOOD, "flood"))
    await scene.publish_doomed("connection_lost", FLOOD, 3, {"account_number": FLOOD})
    yield
    await until(
        lambda: scene.simulator.record and any(each.fault == FLOOD for each in scene.simulator.record)
    )
    scene.repeal(FLOOD)


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
