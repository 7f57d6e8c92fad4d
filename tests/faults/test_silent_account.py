"""Fault row 15: one account that LCM answers with silence, for ever. It fails alone; nobody waits for it."""

from __future__ import annotations

import operator
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import pytest

from tests.faults.rig.amqp_frames import AmqpConversation
from tests.faults.rig.ledger import Ledger
from tests.faults.rig.report import Report, Row
from tests.faults.rig.wire import wire_violations
from tests.faults.rig.workers import WorkerProcess
from tests.support.settings import broker_settings
from tests.support.waiting import until
from tests.support.wire.proxy import Proxy
from worker.sandbox.node import Node
from worker.simulator.behaviour import Rule
from worker.simulator.server import Behaviour, Simulator

SILENT = "0|1|2|0|0|44|0"
DELAYS = ["300ms", "600ms"]
ATTEMPTS = 2
IN_ALL = ATTEMPTS * (1 + len(DELAYS))
SETTINGS: dict[str, object] = {
    "lcm.sessions": 2,
    "lcm.reply_timeout": "700ms",
    "retry.attempts": ATTEMPTS,
    "retry.first_delay": "10ms",
    "retry.max_delay": "20ms",
    "broker.retry_delays": DELAYS,
    # Whoever waits for this is never done in time.
    "outage.probe_delay": "5m",
    "outage.probe_max_delay": "5m",
}


@dataclass
class Rig:
    """A worker whose LCM has nothing to say to SILENT, and the books."""

    simulator: Simulator
    amqp: Proxy
    ledger: Ledger
    worker: WorkerProcess

    @property
    def unanswered(self) -> int:
        return sum(exchange.fault == "silence" for exchange in self.simulator.record)

    def asked_in_vain(self, least: int) -> bool:
        return self.unanswered >= least

    def check(self, row: Row, silent: Sequence[str]) -> None:
        """Check that just these jobs failed, all of them by silence, and that it was no outage."""
        row.inject("silence", self.unanswered)
        row.count(self.ledger.counts())
        self.ledger.assert_invariants(mendable=False)
        assert self.ledger.failed == dict.fromkeys(silent, "timeout")
        assert {letters[0].code for letters in self.ledger.dead.values()} == {"timeout"}
        assert not self.worker.of("lcm.outage_started")
        assert wire_violations(self.amqp.recorder) == []


@asynccontextmanager
async def rig(node: Node, vhost: str, **settings: object) -> AsyncIterator[Rig]:
    behaviour = Behaviour(rules=(Rule(SILENT, "silence"),))
    async with (
        Simulator(behaviour) as simulator,
        Proxy(AmqpConversation, vhost) as amqp,
        Ledger(broker_settings(vhost, retry_delays=DELAYS), node) as ledger,
        WorkerProcess({"broker.url": amqp.url, "lcm.url": simulator.url, **SETTINGS, **settings}) as worker,
    ):
        await worker.started()
        yield Rig(simulator, amqp, ledger, worker)


def good(number: int) -> list[str]:
    return [f"{n}|1|2|0|0|44|{n}" for n in range(1, number + 1)]


@pytest.mark.timeout_s(120)
async def test_a_silent_account_among_good_ones(
    broker: Node, vhost: str, faults: Report, *, full: bool
) -> None:
    """Pitfall: silence for one account looks like an outage. It ends as timeout; all others are done before it."""
    with faults.row("15", "one job") as row:
        async with rig(broker, vhost) as parts:
            silent, *_ = await parts.ledger.submit([SILENT, *good(1000 if full else 100)])
            await parts.ledger.settled()
            parts.check(row, [silent])
            assert list(parts.ledger.results)[-1] == silent
            assert [line["attempts"] for line in parts.worker.of("job.failed")] == [IN_ALL]
            assert parts.unanswered <= IN_ALL


@pytest.mark.timeout_s(120)
async def test_many_jobs_for_a_silent_account(
    broker: Node, vhost: str, faults: Report, *, full: bool
) -> None:
    """Jobs for it share one session's silence, and while they do the other session serves all the rest."""
    number = 60 if full else 20
    with faults.row("15", "many jobs") as row:
        # A worker whose hands are full of them could take no others.
        async with rig(broker, vhost, **{"broker.prefetch": number + 4}) as parts:
            accounts = [SILENT] * number + good(4 * number)
            row.random.shuffle(accounts)
            jobs = await parts.ledger.submit(accounts)
            await parts.ledger.settled()
            silent = [job for job in jobs if parts.ledger.accounts[job] == SILENT]
            parts.check(row, silent)
            assert sorted(list(parts.ledger.results)[-number:]) == sorted(silent)
            assert parts.unanswered < number * ATTEMPTS


@pytest.mark.timeout_s(120)
async def test_others_beside_nothing_but_silence(
    broker: Node, vhost: str, faults: Report, *, full: bool
) -> None:
    """Silence that spoils session after session, fresh or used, makes no other account's job wait for a backoff."""
    with faults.row("15", "nothing else") as row:
        async with rig(broker, vhost) as parts:
            silent = []
            for turn in range(9 if full else 3):
                silent += await parts.ledger.submit([SILENT])
                await until(partial(parts.asked_in_vain, turn + 1))
                [other] = await parts.ledger.submit([f"{turn + 1}|2"])
                await until(partial(operator.contains, parts.ledger.results, other))
            await parts.ledger.settled()
            parts.check(row, silent)
