"""Fault row 16: everything at once. Four workers, two minutes, every fault that this rig knows, from one seed."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from tests.faults.rig.amqp_frames import AmqpConversation
from tests.faults.rig.havoc import Place, Stage, drawn
from tests.faults.rig.ledger import Ledger
from tests.faults.rig.report import Report, Row
from tests.faults.rig.wire import wire_violations
from tests.faults.rig.ws_frames import WsConversation
from tests.support.channel import open_channel
from tests.support.settings import broker_settings
from tests.support.wire.proxy import Proxy
from tests.support.wire.record import Recorder
from worker.sandbox.node import Node
from worker.simulator.server import Behaviour, Simulator

WORKERS = 4
JOBS_PER_SECOND = 100
# No job can fail by bad luck: that takes 9 deliveries in a row (one, and one for each retry delay), of each of which 3
# exchanges fail. The simulator spoils at most 17 % of all exchanges, so it uses up a delivery with a chance of
# 0.17 ** 3 = 0.5 % at most. Together with the outages, of which each costs a delivery an attempt or two, 15 of 12,850
# deliveries were used up (0.1 %). Were it 2 %, a job would fail with 5e-16, one of 12,000 with 6e-12.
LCM_FAULTS: Mapping[str, float] = {
    "reset": 0.02,
    "close": 0.02,
    "cut-off": 0.02,
    "not-json": 0.02,
    "twice": 0.02,
    "unprompted": 0.02,
    "slow": 0.01,
    "late": 0.01,
    "silence": 0.01,
    "wrong-subtopic": 0.01,
    "nan": 0.01,
}
RETRY_DELAYS = [f"{seconds}s" for seconds in range(1, 9)]
BROKER: dict[str, object] = {
    "retry_delays": RETRY_DELAYS,
    # Each kill and each lost connection is a return for what was in hand. A job is returned at most once by each
    # step of the schedule, so above their number none can count as poison, however unlucky it is.
    "delivery_limit": 1000,
}
SETTINGS: dict[str, object] = {
    **{f"broker.{name}": value for name, value in BROKER.items()},
    "lcm.sessions": 12,
    "lcm.reply_timeout": "1s",
    "lcm.connect_timeout": "2s",
    "retry.attempts": 3,
    "retry.first_delay": "50ms",
    "retry.max_delay": "200ms",
    "outage.probe_delay": "100ms",
    "outage.probe_max_delay": "500ms",
    "worker.shutdown_grace": "5s",
}
DEFECTS = {"job.crashed", "lcm.opening_broke", "lcm.probe_broke", "not-json"}


async def feed(ledger: Ledger, seconds: float) -> None:
    """Submit jobs evenly; what an alarm held up is caught up with. Of ten, two are for the same account."""
    clock = asyncio.get_running_loop().time
    began, number = clock(), 0
    while number < seconds * JOBS_PER_SECOND:
        due = round(min(clock() - began, seconds) * JOBS_PER_SECOND)
        accounts = (n - (n % 10 == 9) for n in range(number, due))
        await ledger.submit(f"{n}|1|2|0|0|44|{n}" for n in accounts)
        number = due
        await asyncio.sleep(0.1)


@asynccontextmanager
async def staged(row: Row, broker: Node, url: str, recorder: Recorder) -> AsyncIterator[Stage]:
    # A doubled reply goes out before the next request is read, so the fence tells it: `unprompted_after` must be 0.
    behaviour = Behaviour(
        faults=LCM_FAULTS,
        delay=0.1,
        jitter=0.2,
        slow_by=0.5,
        late_by=1.3,
        unprompted_after=0.0,
        seed=row.random.getrandbits(32),
    )
    async with AsyncExitStack() as stack:
        simulator = await stack.enter_async_context(Simulator(behaviour))
        places = []
        for _ in range(WORKERS):
            amqp = await stack.enter_async_context(Proxy(AmqpConversation, url, recorder=recorder))
            lcm = await stack.enter_async_context(Proxy(WsConversation, simulator.url, recorder=recorder))
            places.append(Place(amqp, lcm, SETTINGS, stack))
        channel = await stack.enter_async_context(open_channel(url))
        yield Stage(places, simulator, broker, channel)


@pytest.mark.timeout_s(600)
async def test_everything_at_once(full: bool, broker: Node, vhost: str, faults: Report) -> None:
    """Kills, resets, freezes, outages, alarms and bad replies together: nothing is lost, wrong, dead or failed."""
    seconds = 120.0 if full else 15.0
    recorder = Recorder()
    with faults.row("16", "everything") as row:
        plan = drawn(row.random, seconds, WORKERS)
        async with (
            Ledger(broker_settings(vhost, **BROKER), broker) as ledger,
            staged(row, broker, vhost, recorder) as stage,
        ):
            try:
                async with asyncio.TaskGroup() as starting:
                    for place in stage.places:
                        starting.create_task(place.start())
                for place in stage.places:
                    await place.workers[-1].started()
                async with asyncio.TaskGroup() as happening:
                    happening.create_task(feed(ledger, seconds))
                    for steps in plan.values():
                        happening.create_task(stage.carry_out(steps))
                stage.simulator.behaviour = Behaviour()
                await ledger.settled(180)
                count(row, stage, ledger)
                check(stage, ledger, recorder)
                assert ledger.counts()["jobs"] == seconds * JOBS_PER_SECOND
            except BaseException as error:
                done = "\n".join(sorted(stage.carried_out))
                error.add_note(f"seed {row.seed}; carried out until then:\n{done}")
                raise


def count(row: Row, stage: Stage, ledger: Ledger) -> None:
    row.count(ledger.counts())
    row.count_faults(stage.done)
    row.count_faults(
        Counter(f"reply {exchange.fault}" for exchange in stage.simulator.record if exchange.fault)
    )


def check(stage: Stage, ledger: Ledger, recorder: Recorder) -> None:
    ledger.assert_invariants()
    assert wire_violations(recorder) == []
    assert (stage.simulator.violations, stage.simulator.max_in_flight) == (0, 1)
    for place in stage.places:
        assert place.workers[-1].returncode is None, place.workers[-1].last_words
        for worker in place.workers:
            assert [line for line in worker.log if line["event"] in DEFECTS] == []
