"""Fault row 13: a job that kills whichever worker has it, beside others in hand."""

from __future__ import annotations

from functools import partial
from typing import Any

import msgspec
import pytest

from tests.faults.rig.amqp_frames import AmqpConversation
from tests.faults.rig.ledger import Ledger
from tests.faults.rig.report import Report
from tests.faults.rig.wire import wire_violations
from tests.faults.rig.workers import WorkerProcess
from tests.faults.rig.ws_frames import WsConversation, is_request
from tests.support.commands import command
from tests.support.settings import broker_settings
from tests.support.waiting import until
from tests.support.wire.proxy import Proxy
from tests.support.wire.record import FROM_WORKER
from worker.sandbox.node import Node
from worker.simulator.server import Behaviour, Simulator

POISON = "666|1|2|0|0|44|666"
INNOCENT = 31
DELIVERY_LIMIT = 5
# From so many returns on a delivery is suspect, and runs alone.
SUSPECT = 3
BROKER: dict[str, object] = {"delivery_limit": DELIVERY_LIMIT, "retry_delays": ["500ms", "1s"]}
SETTINGS: dict[str, object] = {
    **{f"broker.{name}": value for name, value in BROKER.items()},
    "lcm.sessions": 32,
    "lcm.reply_timeout": "10m",
    "retry.budget": "20m",
}
COMMAND_SETTINGS: dict[str, Any] = {
    "broker__delivery_limit": DELIVERY_LIMIT,
    "broker__retry_delays": msgspec.json.encode(BROKER["retry_delays"]).decode(),
}
NEVER = Behaviour(delay=3600.0)


def asked(simulator: Simulator, times: int) -> bool:
    return len(simulator.record) >= times


@pytest.mark.timeout_s(240)
async def test_a_job_that_kills_workers_dies_alone(broker: Node, vhost: str, faults: Report) -> None:
    """Pitfall: a job that kills the worker, 31 others in hand. It alone is dead, as poison; replayed, it succeeds."""
    with faults.row("13", "poison") as row:
        async with (
            Simulator(NEVER) as simulator,
            Proxy(AmqpConversation, vhost) as amqp,
            Proxy(WsConversation, simulator.url) as lcm,
            Ledger(broker_settings(vhost, **BROKER), broker) as ledger,
        ):
            settings = {"broker.url": amqp.url, "lcm.url": lcm.url, **SETTINGS}
            innocent = [f"{n}|1|2|0|0|44|{n}" for n in range(INNOCENT)]
            [_, _, _, poison, *_] = await ledger.submit([*innocent[:3], POISON, *innocent[3:]])
            for kills in range(DELIVERY_LIMIT):
                hold = lcm.hold_at(is_request(account=POISON), FROM_WORKER)
                async with WorkerProcess(settings) as worker:
                    await hold
                    if kills < SUSPECT:
                        # All others are in hand as well, and go down with it.
                        await until(partial(asked, simulator, (kills + 1) * INNOCENT))
                    worker.kill()
                    await worker.wait()
                hold.reset()
                row.inject("kill")
                if kills + 1 == SUSPECT:
                    simulator.behaviour = Behaviour()
            spared = lcm.hold_at(is_request(account=POISON), FROM_WORKER)
            async with WorkerProcess(settings):
                await ledger.settled(120)
                assert not spared.reached
                spared.release()
                assert ledger.failed == {poison: "poison"}
                assert {job: [letter.code for letter in letters] for job, letters in ledger.dead.items()} == {
                    poison: ["poison"]
                }
                ledger.assert_invariants(mendable=False)
                replayed = await command("dead", "replay", poison, broker__url=vhost, **COMMAND_SETTINGS)
                assert replayed.status == 0, replayed.err
                await until(lambda: len(ledger.results[poison]) == 2, deadline=60)
                await ledger.settled()
            failed, succeeded = ledger.results[poison]
            assert (failed.status, succeeded.status) == ("failed", "succeeded")
            assert failed.message_id != succeeded.message_id
            row.count(ledger.counts())
            assert ledger.counts()["dead"] == ledger.counts()["wrong"] == 0
            assert wire_violations(amqp.recorder) == []
