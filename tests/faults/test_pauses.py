"""Fault row 19: the intake is paused again and again at full load, and drained. No job counts as returned for it."""

from __future__ import annotations

from functools import partial

import pytest

from tests.faults.rig.amqp_frames import AmqpConversation, is_delivery
from tests.faults.rig.ledger import Ledger
from tests.faults.rig.report import Report
from tests.faults.rig.wire import wire_violations
from tests.faults.rig.workers import WorkerProcess
from tests.support.settings import broker_settings
from tests.support.waiting import until
from tests.support.wire.proxy import Proxy
from worker.sandbox.node import Node
from worker.simulator.server import Behaviour, Simulator

DELAYS = ["200ms", "400ms"]
SETTINGS: dict[str, object] = {
    "lcm.sessions": 32,
    "broker.prefetch": 64,
    "broker.delivery_limit": 2,
    "broker.retry_delays": DELAYS,
    "outage.probe_delay": "50ms",
    "outage.probe_max_delay": "100ms",
}
BETWEEN = 100  # exchanges between two pauses


def exchanged(simulator: Simulator, count: int) -> bool:
    return len(simulator.record) >= count


def said(worker: WorkerProcess, event: str, times: int) -> bool:
    return len(worker.of(event)) >= times


@pytest.mark.timeout_s(600)
async def test_pauses_at_full_load_return_nothing(
    full: bool, broker: Node, vhost: str, faults: Report
) -> None:
    """Pitfall: basic.cancel. At a delivery limit of 2, one return is enough for a healthy job to end as poison."""
    pauses = 50 if full else 6
    with faults.row("19", "LCM comes and goes") as row:
        async with (
            Simulator(Behaviour(delay=0.01)) as simulator,
            Proxy(AmqpConversation, vhost) as amqp,
            Ledger(broker_settings(vhost, retry_delays=DELAYS, delivery_limit=2), broker) as ledger,
        ):
            settings = {"broker.url": amqp.url, "lcm.url": simulator.url, **SETTINGS}
            await ledger.submit(f"{n}|1|2|0|0|44|{n}" for n in range((pauses + 2) * 3 * BETWEEN))
            async with WorkerProcess(settings) as first:
                await first.started()
                for number in range(1, pauses + 1):
                    await until(partial(exchanged, simulator, len(simulator.record) + BETWEEN))
                    await simulator.stop()
                    await until(partial(said, first, "worker.paused", number))
                    row.inject("pause")
                    await simulator.start()
                    await until(partial(said, first, "worker.resumed", number))
                await until(partial(exchanged, simulator, len(simulator.record) + BETWEEN))
                first.terminate()
                row.inject("drain")
                assert await first.wait() == 0
            async with WorkerProcess(settings):
                await ledger.settled(240)
            row.count(ledger.counts())
            ledger.assert_invariants()
            assert wire_violations(amqp.recorder) == []
            assert amqp.recorder.of(is_delivery(redelivered=True)) == []
