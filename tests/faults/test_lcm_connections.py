"""Fault row 5: LCM resets, freezes, closes or turns away whoever connects. It is called upon at a decent pace."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.faults.rig.amqp_frames import AmqpConversation
from tests.faults.rig.ledger import Ledger
from tests.faults.rig.pace import most_in_any, most_tries, shortest_wait
from tests.faults.rig.report import Report
from tests.faults.rig.wire import wire_violations
from tests.faults.rig.workers import WorkerProcess
from tests.faults.rig.ws_frames import WsConversation, is_request
from tests.support.certificates import Authority
from tests.support.settings import broker_settings
from tests.support.waiting import until
from tests.support.wire.proxy import Proxy
from tests.support.wire.raw_frames import RawConversation
from tests.support.wire.record import FROM_WORKER
from worker.sandbox.node import Node
from worker.simulator.server import Behaviour, Simulator

SESSIONS = 8
FIRST, LONGEST = 0.1, 0.4
DELAYS = ["200ms", "400ms"]
SETTINGS: dict[str, object] = {
    "lcm.sessions": SESSIONS,
    "retry.first_delay": "10ms",
    "retry.max_delay": "20ms",
    "outage.probe_delay": FIRST,
    "outage.probe_max_delay": LONGEST,
    "broker.retry_delays": DELAYS,
}
# Long enough for a busy machine, where sessions that time out before anything is spoiled would be opened anew.
IMPATIENT: dict[str, dict[str, object]] = {
    "frozen": {"lcm.reply_timeout": "1s", "lcm.connect_timeout": "1s"},
    "silent in the exchange": {"lcm.reply_timeout": "1s"},
}
GOOD = Behaviour(delay=0.05)
FAULTS = {
    "reset in the exchange": "reset",
    "silent in the exchange": "freeze",
    "accepts and closes": "accept-and-close",
    "accepts and refuses": "accept-and-close",
    "401": "unauthorized",
    "503": "unavailable",
}
# By these LCM refuses the worker itself, which waits longer and says so at error level.
REFUSALS = {"401", "accepts and refuses"}
TOKEN_EXPIRED = 4401
# No handshake reaches the simulator: connections are counted in front of it.
UNHEARD = {"resets", "frozen"}
DISMAY = {"lcm.outage_started", "lcm.session_failed", "job.retry_later", "job.deferred", "job.failed"}


@asynccontextmanager
async def spoiled(what: str, simulator: Simulator, lcm: Proxy) -> AsyncIterator[None]:
    """Let LCM do that to every connection, then be well again."""
    if what == "frozen":
        lcm.freeze()
        yield
        lcm.thaw()
    elif what == "resets":
        # The proxy resets whom it accepts and can't pass on.
        await simulator.stop()
        yield
        await simulator.start()
    else:
        code = TOKEN_EXPIRED if what in REFUSALS else GOOD.close_code
        simulator.behaviour = Behaviour(faults={FAULTS[what]: 1.0}, close_code=code)
        if what != "silent in the exchange":
            await simulator.close_sessions(reset=True)
        yield
        simulator.behaviour = GOOD


@pytest.mark.parametrize("what", [*FAULTS, *sorted(UNHEARD)])
@pytest.mark.timeout_s(150)
async def test_lcm_is_called_upon_at_a_decent_pace(
    what: str, broker: Node, vhost: str, faults: Report, *, full: bool
) -> None:
    """Pitfall: accept-then-close made 1,625 connections in 2 s. One session probes, backing off; no job pays."""
    settings = SETTINGS | IMPATIENT.get(what, {})
    first, wanted = LONGEST if what in REFUSALS else FIRST, 12 if full else 3
    with faults.row("5", what) as row:
        async with (
            Simulator(GOOD, clock=time.monotonic) as simulator,
            Proxy(AmqpConversation, vhost) as amqp,
            Proxy(WsConversation, simulator.url) as lcm,
            Ledger(broker_settings(vhost, retry_delays=DELAYS), broker) as ledger,
            WorkerProcess({"broker.url": amqp.url, "lcm.url": lcm.url, **settings}) as worker,
        ):

            def connects(since: float = 0.0) -> list[float]:
                heard = lcm.accepted_at if what in UNHEARD else [each.at for each in simulator.connections]
                return [at for at in heard if at >= since]

            await worker.started()
            await ledger.submit([f"{n}|1|2|0|0|44|{n}" for n in range(300 if full else 100)])
            # That all sessions are opened at once when all is well is no haste.
            await until(lambda: len(connects()) >= SESSIONS and not connects(time.monotonic() - FIRST))
            began = time.monotonic()
            async with spoiled(what, simulator, lcm):
                await until(lambda: worker.of("lcm.outage_started"))
                out = time.monotonic()
                later = await ledger.submit([f"{n}|2" for n in range(20)])
                await until(lambda: len(probes(connects(out), first)) >= wanted, deadline=60)
                ended, meanwhile, probing = time.monotonic(), connects(began), probes(connects(out), first)
            await ledger.settled()
            row.inject(what, len(meanwhile))
            row.count(ledger.counts())
            ledger.assert_invariants()
            assert wire_violations(amqp.recorder) == []
            assert most_in_any(FIRST, connects()) <= SESSIONS + 2
            assert len(meanwhile) <= SESSIONS + most_tries(ended - began, first, LONGEST)
            assert min(waits(probing)) >= shortest_wait(0, first, LONGEST)
            assert most_opened_in_an_outage(worker) <= 1
            level = "error" if what in REFUSALS else "warning"
            assert {line["level"] for line in worker.of("lcm.session_failed")} <= {level}
            assert {line["attempts"] for line in succeeded(worker, later)} == {1}
            assert not worker.of("job.retry_later")


@pytest.mark.timeout_s(150)
async def test_a_certificate_that_the_worker_does_not_trust(
    broker: Node, vhost: str, faults: Report, tmp_path: Path, *, full: bool
) -> None:
    """From the first refusal on one session probes at the longest delay, at error level; no job pays for it."""
    wanted = 12 if full else 3
    trusted, other = Authority(tmp_path, "trusted"), Authority(tmp_path, "other")
    with faults.row("5", "certificate") as row:
        async with (
            Simulator(ssl_context=other.server_context()) as impostor,
            Simulator(ssl_context=trusted.server_context()) as simulator,
            Proxy(AmqpConversation, vhost) as amqp,
            # What TLS hides from the simulator is counted in front of it.
            Proxy(RawConversation, impostor.url) as lcm,
            Ledger(broker_settings(vhost, retry_delays=DELAYS), broker) as ledger,
            WorkerProcess(
                {"broker.url": amqp.url, "lcm.url": lcm.url, "lcm.ca_file": trusted.file, **SETTINGS}
            ) as worker,
        ):
            await until(lambda: worker.of("lcm.outage_started"))
            jobs = await ledger.submit([f"{n}|1|2|0|0|44|{n}" for n in range(40)])
            await until(lambda: lcm.accepted >= wanted)
            refused = list(lcm.accepted_at)
            lcm.target = simulator.url
            await worker.started()
            await ledger.settled()
            row.inject("certificate", len(refused))
            row.count(ledger.counts())
            ledger.assert_invariants()
            assert wire_violations(amqp.recorder) == []
            assert impostor.connections == []
            assert min(waits(refused)) >= shortest_wait(0, LONGEST, LONGEST)
            assert most_in_any(FIRST, lcm.accepted_at) <= SESSIONS + 2
            assert {line["level"] for line in worker.of("lcm.session_failed")} == {"error"}
            assert "certificate does not verify" in worker.of("lcm.outage_started")[0]["reason"]
            assert [line["attempts"] for line in succeeded(worker, jobs)] == [1] * len(jobs)


@pytest.mark.parametrize("when", ["while they are idle", "with a request on each"])
@pytest.mark.timeout_s(120)
async def test_all_idle_sessions_are_cut(when: str, broker: Node, vhost: str, faults: Report) -> None:
    """Pitfall: idle sessions cut by a load balancer look like an outage. Noticed or not, no job is charged for it."""
    with faults.row("5", f"cut {when}") as row:
        async with (
            Simulator(GOOD, clock=time.monotonic) as simulator,
            Proxy(AmqpConversation, vhost) as amqp,
            Proxy(WsConversation, simulator.url) as lcm,
            Ledger(broker_settings(vhost), broker) as ledger,
            WorkerProcess({"broker.url": amqp.url, "lcm.url": lcm.url, **SETTINGS}) as worker,
        ):
            await worker.started()
            await ledger.submit([f"{n}|1|2|0|0|44|{n}" for n in range(4 * SESSIONS)])
            await ledger.settled()
            await until(lambda: simulator.live == SESSIONS)
            if when == "while they are idle":
                row.inject("reset", simulator.live)
                await simulator.close_sessions(reset=True, idle_only=True)
                jobs = await ledger.submit([f"{n}|2" for n in range(4 * SESSIONS)])
            else:
                holds = [lcm.hold_at(is_request(), FROM_WORKER, nth=n + 1) for n in range(SESSIONS)]
                jobs = await ledger.submit([f"{n}|2" for n in range(4 * SESSIONS)])
                for hold in holds:
                    await hold
                    row.inject("reset")
                lcm.reset()
            await ledger.settled()
            row.count(ledger.counts())
            ledger.assert_invariants()
            assert wire_violations(amqp.recorder) == []
            assert len(simulator.connections) == 2 * SESSIONS
            assert not [line for line in worker.log if line["event"] in DISMAY]
            assert [line["attempts"] for line in succeeded(worker, jobs)] == [1] * len(jobs)


def probes(connects: Sequence[float], first: float) -> Sequence[float]:
    """Leave out what was being opened when the outage began: it comes together, and the first probe a wait later."""
    paced = [wait >= shortest_wait(0, first, LONGEST) for wait in waits(connects)]
    return connects[paced.index(True) + 1 :] if True in paced else []


def waits(connects: Sequence[float]) -> list[float]:
    return [later - earlier for earlier, later in pairwise(connects)]


def succeeded(worker: WorkerProcess, jobs: Sequence[str]) -> list[dict[str, Any]]:
    return [line for line in worker.of("job.succeeded") if line["job_id"] in jobs]


def most_opened_in_an_outage(worker: WorkerProcess) -> int:
    """Return how many of the sessions that were opened during an outage were ever open at the same time.

    Where exchanges had failed, others were just being opened as the outage began, which are no probes.
    """
    out, most, probing = False, 0, set[int]()
    for line in worker.log:
        if line["event"] in {"lcm.outage_started", "lcm.outage_ended"}:
            out = line["event"] == "lcm.outage_started" and line["by"] == "sessions"
            probing.clear()
        elif line["event"] == "lcm.session_opened" and out:
            probing.add(line["session"])
        elif line["event"] == "lcm.session_closed":
            probing.discard(line["session"])
        most = max(most, len(probing))
    return most
