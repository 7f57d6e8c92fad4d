"""Fault row 12: LCM is slower than the broker's consumer_timeout."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import pytest

from tests.faults.rig.amqp_frames import AmqpConversation, is_method
from tests.faults.rig.ledger import Ledger
from tests.faults.rig.report import Report
from tests.faults.rig.wire import wire_violations
from tests.faults.rig.workers import WorkerProcess
from tests.support.broker import running_broker
from tests.support.settings import broker_settings
from tests.support.waiting import until
from tests.support.wire.proxy import Proxy
from tests.support.wire.record import TO_WORKER, Seen
from worker.sandbox.node import Node
from worker.simulator.server import Behaviour, Simulator

TIMEOUT_MS = 4000
TICK_MS = 250
SESSIONS = 2
# The last of these has its session after 40 * 0.25 / 2 = 5 s, unless it is deferred before.
JOBS = 40
SLOW = Behaviour(delay=0.25)
TIMED_OUT = re.compile("PRECONDITION_FAILED - delivery acknowledgement on channel .* timed out")
SETTINGS: dict[str, object] = {
    "lcm.sessions": SESSIONS,
    "broker.prefetch": JOBS,
    "broker.retry_delays": ["300ms", "1s"],
}


@dataclass
class Parts:
    """A worker with more jobs in hand than it has sessions, at an impatient broker."""

    simulator: Simulator
    amqp: Proxy
    ledger: Ledger
    worker: WorkerProcess

    @property
    def timeouts(self) -> list[Seen]:
        """The channels that the broker closed, since a delivery was held for too long, with PRECONDITION_FAILED."""
        return [
            seen
            for seen in self.amqp.recorder.of(is_method("channel.close"))
            if seen.direction is TO_WORKER
            and "PRECONDITION_FAILED" in seen.frame.text
            and "timed out" in seen.frame.text
        ]


def closed(here: Parts, times: int) -> bool:
    return len(here.timeouts) >= times


@pytest.fixture(scope="module")
def impatient() -> Iterator[Node]:
    """Give a broker that does not wait long for acks."""
    config = {"consumer_timeout": TIMEOUT_MS, "channel_tick_interval": TICK_MS}
    with running_broker(Node(config=config)) as node:
        yield node


@asynccontextmanager
async def parts(node: Node, vhost: str, **settings: object) -> AsyncIterator[Parts]:
    given = {**SETTINGS, **{name.replace("__", "."): value for name, value in settings.items()}}
    url = await node.add_vhost(vhost)
    async with (
        Simulator(SLOW) as simulator,
        Proxy(AmqpConversation, url) as amqp,
        Ledger(broker_settings(url, retry_delays=SETTINGS["broker.retry_delays"]), node) as ledger,
        WorkerProcess({"broker.url": amqp.url, "lcm.url": simulator.url, **given}) as worker,
    ):
        await worker.started()
        yield Parts(simulator, amqp, ledger, worker)


@pytest.mark.timeout_s(240)
async def test_the_channel_is_closed_on_who_holds_too_long(
    full: bool, impatient: Node, faults: Report
) -> None:
    """Pitfall: consumer_timeout. All comes again on a new channel; what is stale is dropped before LCM is asked."""
    with faults.row("12", "consumer_timeout") as row:
        async with parts(impatient, "closed") as here:
            for time in range(1, 4 if full else 2):
                here.simulator.behaviour = SLOW
                await here.ledger.submit([f"{time}|{n}|2|0|0|44|{n}" for n in range(JOBS)])
                await until(partial(closed, here, time), deadline=60)
                row.inject("channel closed")
                here.simulator.behaviour = Behaviour()
                await here.ledger.settled()
            row.count(here.ledger.counts())
            here.ledger.assert_invariants()
            assert wire_violations(here.amqp.recorder) == []
            assert len(here.worker.of("broker.lost")) >= len(here.timeouts)
            assert [line for line in here.worker.of("job.stale") if not line["attempts"]]


@pytest.mark.timeout_s(240)
async def test_who_waits_for_a_session_is_deferred_in_time(
    full: bool, impatient: Node, faults: Report
) -> None:
    """Pitfall: consumer_timeout. With outage.hold below it, the same jobs at the same LCM never run into it."""
    jobs = JOBS * (3 if full else 1)
    with faults.row("12", "hold") as row:
        async with parts(impatient, "held", outage__hold="300ms") as here:
            await here.ledger.submit([f"{n}|1|2|0|0|44|{n}" for n in range(jobs)])
            row.inject("LCM slower than consumer_timeout")
            await here.ledger.settled(120)
            row.count(here.ledger.counts())
            here.ledger.assert_invariants()
            assert wire_violations(here.amqp.recorder) == []
            assert here.timeouts == []
            assert here.worker.of("broker.lost") == []
            assert any("outage.hold" in line["reason"] for line in here.worker.of("job.deferred"))
            assert here.ledger.counts()["repeats"] == 0
