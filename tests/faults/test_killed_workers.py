"""Fault row 1: a worker killed at each station of a job's way. The next one finishes; nothing is lost or wrong."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.faults.rig.amqp_frames import (
    AmqpConversation,
    confirms_the,
    is_client_ack,
    is_delivery,
    is_publish,
)
from tests.faults.rig.ledger import Ledger
from tests.faults.rig.report import Report
from tests.faults.rig.wire import wire_violations
from tests.faults.rig.workers import WorkerProcess
from tests.faults.rig.ws_frames import WsConversation, is_reply, is_request
from tests.support.settings import broker_settings
from tests.support.wire.lane import Hold
from tests.support.wire.proxy import Proxy
from tests.support.wire.record import FROM_WORKER, TO_WORKER
from worker.sandbox.node import Node
from worker.simulator.server import Simulator

Station = Callable[[Proxy, Proxy], Hold]

STATIONS: dict[str, Station] = {
    "delivery": lambda broker, _lcm: broker.hold_at(is_delivery(), TO_WORKER, nth=20),
    "request": lambda _broker, lcm: lcm.hold_at(is_request(), FROM_WORKER, nth=20),
    "reply": lambda _broker, lcm: lcm.hold_at(is_reply(), TO_WORKER, nth=20),
    "publish": lambda broker, _lcm: broker.hold_at(
        is_publish(exchange_suffix=".results"), FROM_WORKER, nth=20
    ),
    "confirm": lambda broker, _lcm: broker.hold_at(confirms_the(20, exchange_suffix=".results"), TO_WORKER),
    "ack": lambda broker, _lcm: broker.hold_at(is_client_ack(), FROM_WORKER, nth=20),
}


@pytest.mark.parametrize("station", STATIONS)
@pytest.mark.timeout_s(120)
async def test_a_worker_killed_at_a_station(station: str, broker: Node, vhost: str, faults: Report) -> None:
    """Killed with 20 jobs behind it and others in hand: every job has its own result, and no ack came too early."""
    with faults.row("1", station) as row:
        async with (
            Simulator() as simulator,
            Proxy(AmqpConversation, vhost) as amqp,
            Proxy(WsConversation, simulator.url) as lcm,
            Ledger(broker_settings(vhost), broker) as ledger,
        ):
            settings = {"broker.url": amqp.url, "lcm.url": lcm.url, "lcm.sessions": 4}
            async with WorkerProcess(settings) as first:
                await first.started()
                hold = STATIONS[station](amqp, lcm)
                await ledger.submit([f"{n}|1|2|0|0|44|{n}" for n in range(60)])
                await hold
                first.kill()
                await first.wait()
                row.inject("kill")
                # The broker sees the end of a connection only where nothing is held on it.
                hold.reset()
            async with WorkerProcess(settings) as second:
                await second.started()
                await ledger.settled()
            row.count(ledger.counts())
            ledger.assert_invariants()
            assert wire_violations(amqp.recorder) == []
            assert simulator.max_in_flight == 1
