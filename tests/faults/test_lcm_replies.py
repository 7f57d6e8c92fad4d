"""Fault rows 3 and 4: replies that come late, twice or unasked, or can't be read. No list is another's."""

from __future__ import annotations

from typing import Any

import pytest

from tests.faults.rig.amqp_frames import AmqpConversation
from tests.faults.rig.ledger import Ledger
from tests.faults.rig.report import Report
from tests.faults.rig.wire import wire_violations
from tests.faults.rig.workers import WorkerProcess
from tests.support.settings import broker_settings
from tests.support.wire.proxy import Proxy
from worker.sandbox.node import Node
from worker.simulator.behaviour import Rule
from worker.simulator.server import Behaviour, Simulator

JOBS = 400
QUICK: dict[str, object] = {
    "lcm.sessions": 4,
    "lcm.reply_timeout": "200ms",
    "retry.first_delay": "10ms",
    "retry.max_delay": "20ms",
    "outage.probe_delay": "50ms",
    "outage.probe_max_delay": "100ms",
    "broker.retry_delays": "500ms,1s,2s",
}
REPLIES: dict[str, tuple[dict[str, float], dict[str, object]]] = {
    "late": ({"late": 0.05}, {}),
    "twice": ({"twice": 0.2}, {}),
    "twice, fresh sessions": ({"twice": 0.2}, {"lcm.max_exchanges": 1}),
    "unprompted": ({"unprompted": 0.2}, {}),
    "wrong subtopic": ({"wrong-subtopic": 0.05}, {}),
    "not JSON": ({"not-json": 0.1}, {}),
    "NaN": ({"nan": 0.1}, {}),
    "deep": ({"deep": 0.1}, {}),
    "cut off": ({"cut-off": 0.1}, {}),
    "sliced": ({"sliced": 0.2}, {}),
    "dropped": ({"close": 0.05, "reset": 0.05}, {}),
}


@pytest.mark.parametrize("what", REPLIES)
@pytest.mark.timeout_s(120)
async def test_every_job_gets_its_own_list(
    what: str, seed: int, broker: Node, vhost: str, faults: Report
) -> None:
    """Whatever LCM does to a part of its replies: one own result for each job, none dead, none wrong."""
    injected, settings = REPLIES[what]
    behaviour = Behaviour(faults=injected, late_by=0.3, unprompted_after=0.0, seed=seed)
    row_name = "3" if what.startswith(("late", "twice", "unprompted")) else "4"
    with faults.row(row_name, what) as row:
        async with (
            Simulator(behaviour) as simulator,
            Proxy(AmqpConversation, vhost) as amqp,
            Ledger(settings_of(vhost), broker) as ledger,
            WorkerProcess({"broker.url": amqp.url, "lcm.url": simulator.url, **QUICK, **settings}) as worker,
        ):
            await worker.started()
            await ledger.submit([f"{n}|1|2|0|0|44|{n}" for n in range(JOBS)])
            await ledger.settled()
            row.inject(what, sum(exchange.fault is not None for exchange in simulator.record))
            row.count(ledger.counts())
            ledger.assert_invariants()
            assert wire_violations(amqp.recorder) == []
            assert simulator.violations == 0


@pytest.mark.timeout_s(120)
async def test_a_reply_that_is_too_large_fails_its_job_alone(
    broker: Node, vhost: str, faults: Report
) -> None:
    """10 MB for one account: that job is dead-lettered as reply_too_large, all others have their lists."""
    behaviour = Behaviour(rules=(Rule("0|*", "huge"),))
    with faults.row("4", "10 MB") as row:
        async with (
            Simulator(behaviour) as simulator,
            Ledger(settings_of(vhost), broker) as ledger,
            WorkerProcess({"broker.url": vhost, "lcm.url": simulator.url, **QUICK}) as worker,
        ):
            await worker.started()
            await ledger.submit([f"{n}|1|2|0|0|44|{n}" for n in range(30)])
            await ledger.settled()
            row.inject("huge")
            row.count(ledger.counts())
            ledger.assert_invariants(mendable=False)
            assert list(ledger.failed.values()) == ["reply_too_large"]


def settings_of(url: str) -> Any:
    return broker_settings(url, retry_delays=str(QUICK["broker.retry_delays"]).split(","))
