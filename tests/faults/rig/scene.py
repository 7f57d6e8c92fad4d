"""The stage of the tests about neighbours: a worker with all its parts, and a results queue of the dialer's own."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

import msgspec
from aiormq import spec
from aiormq.abc import AbstractChannel

from tests.faults.rig.ledger import Ledger
from tests.faults.rig.report import Row
from tests.faults.rig.workers import WorkerProcess
from tests.support.channel import open_channel
from tests.support.commands import command
from tests.support.settings import broker_settings
from tests.support.waiting import until
from worker.sandbox.node import Node
from worker.simulator.behaviour import Behaviour, Rule
from worker.simulator.server import Simulator

JOBS, RESULTS, OWN = "lcm.outcome.jobs", "lcm.outcome.results", "dialer.results"
GOOD_ROUTE = "good"
LCM = Behaviour(delay=0.05)
BROKER: dict[str, object] = {"results_queue": False, "retry_delays": ["1s", "2s", "4s"]}
SETTINGS: dict[str, object] = {
    **{f"broker.{name}": value for name, value in BROKER.items()},
    "lcm.sessions": 32,
    "lcm.reply_timeout": "5s",
    "retry.attempts": 1,
    "outage.probe_delay": "500ms",
    "outage.probe_max_delay": "2s",
}
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

    async def do_good(self, first: int, count: int) -> float:
        """Have good jobs done, for accounts numbered from `first` on; return the seconds that it took."""
        clock = asyncio.get_running_loop().time
        began = clock()
        accounts = (f"{n}|1|2|0|0|44|{n}" for n in range(first, first + count))
        good = await self.ledger.submit(accounts, route=GOOD_ROUTE)
        await until(lambda: all(job in self.ledger.results for job in good), deadline=300)
        return clock() - began

    async def settled(self, row: Row) -> None:
        """Check that everything ends, that nothing fails but what has to, and that all of it was the neighbours'."""
        await self.ledger.settled(240)
        row.count(self.ledger.counts())
        self.ledger.assert_invariants(mendable=False)
        unexpected = self.ledger.failed.items() - self.doomed.items()
        assert not unexpected
        for event in ("broker.lost", "job.crashed", "lcm.outage_started"):
            assert not self.worker.of(event)

    async def send_parked(self) -> None:
        """Have the dialer's queue take the results of every route, and send those that wait, as an operator would."""
        await self.channel.queue_bind(OWN, RESULTS, "result.#")
        await command("undelivered", "send", "--all", broker__url=self.url, broker__results_queue="false")

    def said(self, event: str, times: int = 1, **fields: object) -> bool:
        """Tell whether the worker has logged an event so often, with these fields."""
        return sum(fields.items() <= line.items() for line in self.worker.of(event)) >= times


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


@asynccontextmanager
async def staged(broker: Node, url: str, *, full: bool, **settings: object) -> AsyncIterator[Scene]:
    """Set the stage; `settings` are further ones of the worker's."""
    port = free_port()
    async with (
        Simulator(LCM) as simulator,
        Ledger(broker_settings(url, **BROKER), broker, results=OWN, collect=False) as ledger,
        open_channel(url) as channel,
        WorkerProcess(
            {
                "broker.url": url,
                "lcm.url": simulator.url,
                "health.listen": f"127.0.0.1:{port}",
                **SETTINGS,
                **settings,
            }
        ) as worker,
    ):
        await channel.queue_declare(OWN, durable=True, arguments={"x-queue-type": "quorum"})
        for key in (f"result.*.{GOOD_ROUTE}", "result.succeeded", "result.failed"):
            await channel.queue_bind(OWN, RESULTS, key)
        ledger.start_collecting()
        await worker.started()
        yield Scene(broker, url, channel, simulator, worker, ledger, port, full)
