"""Fault rows 7 and 9: connections reset at the worst moments, and a broker that takes no messages for a while."""

from __future__ import annotations

from functools import partial

import pytest

from tests.faults.rig.amqp_frames import AmqpConversation, confirms_the, is_publish
from tests.faults.rig.ledger import Ledger
from tests.faults.rig.report import Report
from tests.faults.rig.wire import wire_violations
from tests.faults.rig.workers import WorkerProcess
from tests.faults.rig.ws_frames import WsConversation
from tests.support.settings import broker_settings
from tests.support.waiting import until
from tests.support.wire.proxy import Proxy
from tests.support.wire.record import FROM_WORKER, TO_WORKER
from worker.sandbox.node import Node
from worker.simulator.server import Behaviour, Simulator

SETTINGS: dict[str, object] = {"lcm.sessions": 4}


@pytest.mark.parametrize("where", ["publish", "confirm"])
@pytest.mark.timeout_s(120)
async def test_the_publishing_connection_goes_before_the_confirm(
    where: str, broker: Node, vhost: str, faults: Report
) -> None:
    """What was not confirmed is published again, at worst as a repeat with the same message id."""
    with faults.row("7", where) as row:
        async with (
            Simulator() as simulator,
            Proxy(AmqpConversation, vhost) as amqp,
            Ledger(broker_settings(vhost), broker) as ledger,
            WorkerProcess({"broker.url": amqp.url, "lcm.url": simulator.url, **SETTINGS}) as worker,
        ):
            await worker.started()
            if where == "publish":
                hold = amqp.hold_at(is_publish(exchange_suffix=".results"), FROM_WORKER, nth=10)
            else:
                hold = amqp.hold_at(confirms_the(10, exchange_suffix=".results"), TO_WORKER)
            await ledger.submit([f"{n}|1|2|0|0|44|{n}" for n in range(100)])
            await hold
            hold.reset()
            await ledger.settled()
            row.inject("reset")
            row.count(ledger.counts())
            ledger.assert_invariants()
            assert wire_violations(amqp.recorder) == []


def asked(simulator: Simulator, least: int) -> bool:
    return len(simulator.record) >= least


def connected(worker: WorkerProcess, times: int) -> bool:
    return len(worker.of("broker.connected")) >= times


@pytest.mark.timeout_s(120)
async def test_both_connections_go_with_everything_in_hand(broker: Node, vhost: str, faults: Report) -> None:
    """Pitfall: deliveries of a lost channel. What comes again is done anew; no list is another's."""
    with faults.row("7", "full prefetch") as row:
        async with (
            Simulator(Behaviour(delay=0.1, jitter=0.1)) as simulator,
            Proxy(AmqpConversation, vhost) as amqp,
            Ledger(broker_settings(vhost), broker) as ledger,
            WorkerProcess({"broker.url": amqp.url, "lcm.url": simulator.url, **SETTINGS}) as worker,
        ):
            await worker.started()
            await ledger.submit([f"{n}|1|2|0|0|44|{n}" for n in range(100)])
            for cut in range(1, 4):
                await until(partial(asked, simulator, 8 * cut))
                amqp.reset()
                row.inject("reset")
                await until(partial(connected, worker, 2 + 2 * cut))
            await ledger.settled()
            row.count(ledger.counts())
            ledger.assert_invariants()
            assert wire_violations(amqp.recorder) == []


@pytest.mark.timeout_s(120)
async def test_a_blocked_broker_gets_no_copies(broker: Node, vhost: str, faults: Report) -> None:
    """Pitfall: every publish that timed out in an alarm lands later. Longer than publish_timeout, and no repeat."""
    settings = {
        "broker.publish_timeout": "3s", "log.stats_interval": "1s", "lcm.reply_timeout": "50s", **SETTINGS
    }  # fmt: skip
    with faults.row("9", "memory alarm") as row:
        async with (
            Simulator() as simulator,
            Proxy(WsConversation, simulator.url) as lcm,
            Ledger(broker_settings(vhost), broker) as ledger,
            WorkerProcess({"broker.url": vhost, "lcm.url": lcm.url, **settings}) as worker,
        ):
            await worker.started()
            # Only who publishes in an alarm is told of it: no job gets its answer before the alarm is on.
            lcm.freeze(TO_WORKER)
            await ledger.submit([f"{n}|1|2|0|0|44|{n}" for n in range(20)])
            await broker.alarm(on=True)
            try:
                lcm.thaw(TO_WORKER)
                await until(lambda: worker.of("broker.blocked"))
                row.inject("alarm")
                seen = len(worker.of("worker.stats"))
                # Five statistics are four to five seconds: past every publish's timeout.
                await until(lambda: len(worker.of("worker.stats")) >= seen + 5)
            finally:
                await broker.alarm(on=False)
            await ledger.settled()
            row.count(ledger.counts())
            ledger.assert_invariants()
            assert ledger.counts()["repeats"] == 0
            await until(lambda: worker.of("broker.unblocked"))
