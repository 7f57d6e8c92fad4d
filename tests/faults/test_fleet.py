"""Fault row 23: one limit for all workers, who join, leave, die, stop and are cut from the broker at random."""

from __future__ import annotations

import asyncio
import random
import time
from bisect import bisect_right
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from operator import itemgetter

import pytest

from tests.faults.rig.cluster import Cluster
from tests.faults.rig.lateness import Lateness
from tests.faults.rig.ledger import Evaluates, Ledger
from tests.faults.rig.pace import most_in_any
from tests.faults.rig.report import Report, Row
from tests.faults.rig.workers import WorkerProcess
from tests.support.settings import broker_settings
from tests.support.waiting import running, until
from tests.support.wire.proxy import Proxy
from tests.support.wire.raw_frames import RawConversation
from worker.sandbox.node import Node
from worker.simulator.server import Behaviour, Simulator

LIMIT, WORKERS, FEWEST, MOST = 40, 8, 4, 9
RATE = 50.0
REPLY_TIMEOUT = 2.0
CALM = (
    REPLY_TIMEOUT + 10 + 5 + REPLY_TIMEOUT + 4
)  # seconds after which nothing is left of what happened before
WATCHED = 5.0
DELAYS = ["1s", "2s", "5s"]
IN_HAND = 700  # jobs that are published and not ended, so that all sessions are busy
SETTINGS: dict[str, object] = {
    "lcm.sessions": LIMIT // 2,
    "lcm.reply_timeout": f"{REPLY_TIMEOUT:g}s",
    "broker.prefetch": LIMIT,
    "broker.retry_delays": DELAYS,
    "log.stats_interval": "1s",
}
Act = Callable[[], Awaitable[None]]


class Fleet:
    """The workers, each behind a proxy of its own, and what is done to them."""

    def __init__(
        self, urls: Sequence[str], lcm: Simulator, stack: AsyncExitStack, row: Row, **limits: object
    ) -> None:
        self.workers: list[tuple[WorkerProcess, Proxy]] = []
        self._all: list[WorkerProcess] = []
        self._urls = urls
        self._lcm = lcm
        self._stack = stack
        self._row = row
        self._limits = {f"lcm.{name}": value for name, value in limits.items()}
        self._numbers = count(1)
        self._later: set[asyncio.Task[None]] = set()

    @property
    def random(self) -> random.Random:
        return self._row.random

    async def join(self) -> None:
        """Start one more, where there are not too many."""
        if len(self.workers) >= MOST:
            return
        number = next(self._numbers)
        proxy = await self._stack.enter_async_context(
            Proxy(RawConversation, self._urls[number % len(self._urls)])
        )
        settings = {"broker.url": proxy.url, "lcm.url": self._lcm.url, "worker.name": f"w-{number}"}
        worker = await self._stack.enter_async_context(WorkerProcess(settings | SETTINGS | self._limits))
        self.workers.append((worker, proxy))
        self._all.append(worker)
        self._row.inject("join")

    async def leave(self) -> None:
        """Ask one to end."""
        if one := self._one_less():
            one.terminate()
            self._row.inject("leave")

    async def kill(self) -> None:
        """Kill one."""
        if one := self._one_less():
            one.kill()
            self._row.inject("kill")

    async def stop(self) -> None:
        """Stop one for a while, shorter or longer than it may use its share."""
        worker, _ = self.random.choice(self.workers)
        worker.pause()
        self._row.inject("stop")
        self._after(self.random.choice([1, 8, 25]), worker.resume)

    async def cut(self) -> None:
        """Cut one from the broker for a while, by silence or by a closed port."""
        _, proxy = self.random.choice(self.workers)
        self._row.inject("cut")
        if self.random.random() < 0.5:
            proxy.freeze()
            self._after(self.random.choice([1, 8, 25]), proxy.thaw)
        else:
            await proxy.refuse()
            proxy.reset()
            self._after(
                self.random.choice([1, 8, 25]), lambda: asyncio.ensure_future(self._listen_again(proxy))
            )

    def said(self) -> str:
        """Return what the workers logged, but for jobs and earlier statistics, in the order of time."""
        lines = [
            (str(line.get("timestamp")), number, line)
            for number, worker in enumerate(self._all, 1)
            for line in worker.log
            if not str(line["event"]).startswith(("job.", "worker.stats"))
        ]
        last = (worker.of("worker.stats")[-1:] for worker in self._all)
        lines += [
            (str(line["timestamp"]), number, line) for number, told in enumerate(last, 1) for line in told
        ]
        return "\n".join(f"w-{number} {line}" for _, number, line in sorted(lines, key=itemgetter(0, 1)))

    def pauses(self) -> tuple[int, int]:
        """Return for how many reasons the workers pause now, and how often they have paused at all."""
        events = [line["event"] for worker, _ in self.workers for line in worker.log]
        paused = events.count("worker.paused")
        return paused - events.count("worker.resumed"), paused

    async def settle(self) -> None:
        """Wait until what is under way for a while is over."""
        while self._later:
            await asyncio.wait(self._later)
        while len(self.workers) < FEWEST:
            await self.join()

    def _one_less(self) -> WorkerProcess | None:
        if len(self.workers) <= FEWEST:
            return None
        return self.workers.pop(self.random.randrange(len(self.workers)))[0]

    def _after(self, seconds: float, act: Callable[[], object]) -> None:
        async def later() -> None:
            await asyncio.sleep(seconds)
            act()

        task = asyncio.ensure_future(later())
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    async def _listen_again(self, proxy: Proxy) -> None:
        if proxy.port and not proxy.connections:
            await proxy.listen()


@asynccontextmanager
async def kept_busy(ledger: Ledger) -> AsyncIterator[None]:
    """Publish as many jobs as are needed for all sessions to have one; what was begun is published to its end."""
    enough = asyncio.Event()

    def is_time() -> bool:
        return enough.is_set() or len(ledger.accounts) - len(ledger.results) < IN_HAND

    async def publish() -> None:
        for number in count():
            await until(is_time, deadline=120)
            if enough.is_set():
                return
            await ledger.submit([f"{number}|{n}" for n in range(100)])

    publishing = asyncio.ensure_future(publish())
    try:
        yield
    finally:
        enough.set()
        await publishing


def busy(simulator: Simulator, begin: float, end: float) -> float:
    """Return how many exchanges were under way in the mean between two moments."""
    spans = ((each.at, each.replied or end) for each in simulator.record[-20_000:])
    return sum(max(0.0, min(to, end) - max(at, begin)) for at, to in spans) / (end - begin)


async def busy_in_calm(workers: Fleet, simulator: Simulator) -> float:
    """Return how many exchanges were under way in the mean while no worker paused.

    A worker pauses to do a job by itself that came back often, as jobs do whose broker's node was killed.
    """
    while True:
        await until(lambda: not workers.pauses()[0], deadline=120)
        _, before = workers.pauses()
        began = time.time()
        await asyncio.sleep(WATCHED)
        if workers.pauses() == (0, before):
            return busy(simulator, began, time.time())


def too_many_in_a_second(times: Sequence[float], late: Lateness) -> list[tuple[float, int, float]]:
    """Return each second in which too many exchanges began: when, how many, and how late the simulator was.

    Those of a second are heard within one that is shorter by as much as the simulator was late.
    """
    counts = ((at, bisect_right(times, at + 1.0) - begin) for begin, at in enumerate(times))
    above = [(at, found, late.within(at, at + 1.0)) for at, found in counts if found > RATE + MOST]
    return [
        (round(at - times[0], 2), found, round(lateness, 3))
        for at, found, lateness in above
        if found > RATE * (1 + lateness) + MOST
    ]


@asynccontextmanager
async def stage(
    urls: Sequence[str], broker: Evaluates, row: Row, delay: float, **limits: object
) -> AsyncIterator[tuple[Fleet, Simulator, Ledger]]:
    # Its pings end the sessions of a worker that is stopped, as LCM does in the end.
    simulator = Simulator(Behaviour(delay=delay, jitter=delay / 2), ping_interval=2.0)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(simulator)
        settings = broker_settings(",".join(urls), retry_delays=DELAYS)
        ledger = await stack.enter_async_context(Ledger(settings, broker))
        workers = Fleet(urls, simulator, stack, row, **limits)
        for _ in range(WORKERS):
            await workers.join()
        try:
            yield workers, simulator, ledger
        except (AssertionError, TimeoutError) as error:
            error.add_note(workers.said())
            raise


async def harass(workers: Fleet, acts: Sequence[Act], seconds: float) -> None:
    """Do one thing after the other at random."""
    until_ = time.monotonic() + seconds
    while time.monotonic() < until_:
        await workers.random.choice(acts)()
        await asyncio.sleep(workers.random.uniform(0.1, 4))
    await workers.settle()


async def run(
    urls: Sequence[str], broker: Evaluates, row: Row, cycles: int, *more: Act, more_time: float = 0.0
) -> None:
    """Go through cycles of trouble and calm, and look after each.

    How busy sessions are is measured where there are several cycles: then nothing else runs on this machine.
    """
    async with stage(urls, broker, row, 0.8, fleet_sessions=LIMIT) as (workers, simulator, ledger):
        async with kept_busy(ledger):
            # A stream has replicas on the nodes that run when it is declared, and is read there alone.
            await until(lambda: simulator.sessions == LIMIT)
            for _ in range(cycles):
                acts = [
                    workers.join,
                    workers.leave,
                    workers.kill,
                    workers.stop,
                    workers.cut,
                    workers.join,
                    *more,
                ]
                await harass(workers, acts, 12)
                await asyncio.sleep(CALM + more_time)
                await until(lambda: simulator.sessions == LIMIT)
                if cycles > 1:
                    assert await busy_in_calm(workers, simulator) >= 0.95 * LIMIT
                assert simulator.peak_sessions <= LIMIT
        await ledger.settled(deadline=120)
        row.count(ledger.counts())
        ledger.assert_invariants()
        assert (simulator.peak_sessions, simulator.violations, simulator.max_in_flight) == (LIMIT, 0, 1)


@pytest.mark.timeout_s(1500)
async def test_sessions_never_exceed_the_limit(
    broker: Node, vhost: str, faults: Report, *, full: bool
) -> None:
    """Never one session more than all may have together; nearly all are busy whenever things are calm."""
    with faults.row("23", "sessions") as row:
        await run([vhost], broker, row, 13 if full else 1)


@pytest.mark.timeout_s(1500)
async def test_sessions_never_exceed_the_limit_on_a_cluster(
    cluster: Cluster, vhost: str, faults: Report, *, full: bool
) -> None:
    """Nor where nodes of a cluster are killed, one at a time, beside it."""
    with faults.row("23", "cluster") as row:
        urls = await cluster.add_vhost(vhost.rpartition("/")[2])

        async def kill_a_node() -> None:
            node = row.random.choice(cluster.nodes)
            await node.kill()
            row.inject("node killed")
            await asyncio.sleep(row.random.uniform(0, 8))
            await node.start()
            await cluster.whole()

        await run(urls, cluster, row, 4 if full else 1, kill_a_node, kill_a_node, more_time=15.0)


@pytest.mark.timeout_s(600)
async def test_exchanges_keep_to_the_rate(broker: Node, vhost: str, faults: Report, *, full: bool) -> None:
    """In any 10 s at most a tenth more than the rate, in any second one more for each worker; and it is used."""
    with faults.row("23", "rate") as row:
        limits = {"fleet_sessions": LIMIT, "fleet_rate": RATE}
        late = Lateness()
        async with (
            running(late.watch()),
            stage([vhost], broker, row, 0.02, **limits) as (workers, simulator, ledger),
        ):
            async with kept_busy(ledger):
                for _ in range(4 if full else 1):
                    await harass(workers, [workers.join, workers.leave, workers.kill, workers.cut], 12)
                    await asyncio.sleep(CALM)
                    began = time.time()
                    await asyncio.sleep(WATCHED)
                    asked = [each.at for each in simulator.record if each.at >= began]
                    assert len(asked) >= 0.95 * RATE * WATCHED or not full
            times = [each.at for each in simulator.record]
            assert most_in_any(10.0, times) <= 1.1 * RATE * 10
            assert not too_many_in_a_second(times, late)
            await ledger.settled(deadline=120)
            row.count(ledger.counts())
            ledger.assert_invariants()
            assert simulator.peak_sessions <= LIMIT
