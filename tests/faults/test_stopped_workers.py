"""Fault row 2: a worker told to end while something of its work is held. It finishes it or hands it back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import NamedTuple

import pytest

from tests.faults.rig.amqp_frames import AmqpConversation, confirms_the, is_publish, is_return
from tests.faults.rig.ledger import Ledger
from tests.faults.rig.report import Report
from tests.faults.rig.wire import wire_violations
from tests.faults.rig.workers import WorkerProcess
from tests.faults.rig.ws_frames import WsConversation, is_reply
from tests.support.channel import open_channel
from tests.support.settings import broker_settings
from tests.support.waiting import until
from tests.support.wire.lane import Hold
from tests.support.wire.proxy import Proxy
from tests.support.wire.record import FROM_WORKER, TO_WORKER
from worker.sandbox.node import Node
from worker.simulator.server import Simulator

RESULTS, KEPT = "lcm.outcome.results", "kept"
HELD: dict[str, Callable[[Proxy, Proxy, int], Hold]] = {
    "exchange": lambda _broker, lcm, nth: lcm.hold_at(is_reply(), TO_WORKER, nth=nth),
    "publish": lambda broker, _lcm, nth: broker.hold_at(
        is_publish(exchange_suffix=".results"), FROM_WORKER, nth=nth
    ),
    "confirm": lambda broker, _lcm, nth: broker.hold_at(
        confirms_the(nth, exchange_suffix=".results"), TO_WORKER
    ),
}
# What is held is given up by the end of the worker alone.
PATIENT: dict[str, object] = {
    "lcm.sessions": 4,
    "lcm.reply_timeout": "9m",
    "retry.budget": "20m",
    "broker.publish_timeout": "9m",
}
ENDS: dict[str, str] = {"grace over": "1s", "second signal": "30m"}


class Parts(NamedTuple):
    """All but the workers."""

    simulator: Simulator
    amqp: Proxy
    lcm: Proxy
    ledger: Ledger
    settings: dict[str, object]


@asynccontextmanager
async def parts(broker: Node, vhost: str) -> AsyncIterator[Parts]:
    async with (
        Simulator() as simulator,
        Proxy(AmqpConversation, vhost) as amqp,
        Proxy(WsConversation, simulator.url) as lcm,
        Ledger(broker_settings(vhost), broker) as ledger,
    ):
        urls = {"broker.url": amqp.url, "lcm.url": lcm.url}
        yield Parts(simulator, amqp, lcm, ledger, {**PATIENT, **urls})


def accounts(count: int) -> list[str]:
    return [f"{n}|1|2|0|0|44|{n}" for n in range(count)]


@pytest.mark.parametrize("held", HELD)
@pytest.mark.timeout_s(300)
async def test_it_finishes_what_is_held_once_that_goes_on(
    held: str, full: bool, broker: Node, vhost: str, faults: Report
) -> None:
    """Told to end, it takes nothing more, ends with 0 when all in hand is done, and hands nothing back half done."""
    with faults.row("2", f"{held} held for a while") as row:
        async with parts(broker, vhost) as (simulator, amqp, lcm, ledger, settings):
            for _ in range(2 if full else 1):
                async with WorkerProcess({**settings, "worker.shutdown_grace": "30m"}) as first:
                    await first.started()
                    hold = HELD[held](amqp, lcm, row.random.randrange(5, 30))
                    await ledger.submit(accounts(60))
                    await hold
                    first.terminate()
                    row.inject("SIGTERM")
                    await until(partial(first.of, "worker.draining"))
                    assert first.returncode is None
                    hold.release()
                    assert await first.wait() == 0, first.last_words
                    assert first.of("worker.draining")
                    assert not first.of("worker.gave_up")
            async with WorkerProcess(settings) as second:
                await second.started()
                await ledger.settled(120)
            row.count(ledger.counts())
            ledger.assert_invariants()
            assert wire_violations(amqp.recorder) == []
            assert ledger.repeats == 0
            # Nothing was begun and left, or another worker would have had to ask for it again.
            assert len(simulator.record) == len(ledger.accounts)


@pytest.mark.parametrize("held", HELD)
@pytest.mark.timeout_s(300)
async def test_it_hands_back_what_stays_held(
    held: str, full: bool, broker: Node, vhost: str, faults: Report
) -> None:
    """When the grace is over, or at a second signal however long that is, it ends with 0; the next worker finishes."""
    with faults.row("2", f"{held} held for ever") as row:
        async with parts(broker, vhost) as (_, amqp, lcm, ledger, settings):
            unheard = 0
            for end, grace in list(ENDS.items()) * (2 if full else 1):
                async with WorkerProcess({**settings, "worker.shutdown_grace": grace}) as first:
                    await first.started()
                    hold = HELD[held](amqp, lcm, row.random.randrange(5, 30))
                    await ledger.submit(accounts(60))
                    await hold
                    first.terminate()
                    row.inject("SIGTERM")
                    if end == "second signal":
                        await until(partial(first.of, "worker.draining"))
                        first.terminate()
                        row.inject("SIGTERM")
                    assert await first.wait() == 0, first.last_words
                    # The broker sees the end of a connection only where nothing is held on it.
                    hold.reset()
                    (gave_up,) = first.of("worker.gave_up")
                    assert gave_up["deliveries"] >= 1
                    if end == "second signal" or held == "confirm":
                        unheard += gave_up["deliveries"]
            async with WorkerProcess(settings) as second:
                await second.started()
                await ledger.settled(120)
            row.count(ledger.counts())
            ledger.assert_invariants()
            assert wire_violations(amqp.recorder) == []
            # Only where the broker may have taken a result of which the worker had not heard is there another one.
            assert ledger.repeats <= unheard


@pytest.mark.timeout_s(300)
async def test_it_parks_results_that_nobody_takes(broker: Node, vhost: str, faults: Report) -> None:
    """With no queue bound for the results it parks them and ends with 0; another worker sends them later."""
    own = {"broker.results_queue": False, "lcm.sessions": 4}
    with faults.row("2", "unroutable results") as row:
        async with (
            Simulator() as simulator,
            Proxy(AmqpConversation, vhost) as amqp,
            Ledger(broker_settings(vhost, results_queue=False), broker, results=KEPT) as ledger,
            open_channel(vhost) as channel,
        ):
            settings = {"broker.url": amqp.url, "lcm.url": simulator.url, **own}
            async with WorkerProcess(settings) as first:
                await first.started()
                await ledger.submit(accounts(30))
                await amqp.passed(is_return())
                first.terminate()
                row.inject("SIGTERM")
                assert await first.wait() == 0, first.last_words
                assert not first.of("worker.gave_up")
                assert len(first.of("result.undelivered")) == 1
                assert all(line["parked"] for line in first.of("job.succeeded"))
            await channel.queue_declare(KEPT, durable=True, arguments={"x-queue-type": "quorum"})
            await channel.queue_bind(KEPT, RESULTS, "result.#")
            async with WorkerProcess(settings) as second:
                await second.started()
                await ledger.settled(120)
            row.count(ledger.counts())
            ledger.assert_invariants()
            assert wire_violations(amqp.recorder) == []
            assert ledger.repeats == 0
