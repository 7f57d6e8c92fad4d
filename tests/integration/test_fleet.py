"""Workers that share a limit, as processes, over a real broker, at a simulator that counts their sessions."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from typing import Any

import msgspec
from aiormq.abc import AbstractChannel

from tests.support.channel import depth, open_channel
from tests.support.commands import Worker, command, on_terminal
from tests.support.in_process import RESULTS, numbered, publish
from tests.support.waiting import running, until
from tests.support.wire.proxy import Proxy
from tests.support.wire.raw_frames import RawConversation
from worker.simulator.server import Behaviour, Simulator

LIMIT = 7
# A worker that is silent is given up after twice the reply timeout and 20 s.
QUICK = {
    "lcm__sessions": 5,
    "lcm__fleet_sessions": LIMIT,
    "lcm__reply_timeout": "1s",
    "log__stats_interval": "200ms",
}


class Fleet:
    """Workers of one limit, and jobs enough for all of them."""

    def __init__(self, broker_url: str, lcm: Simulator, stack: AsyncExitStack, **settings: object) -> None:
        self.lcm = lcm
        self.workers: list[Worker] = []
        self._names: Iterator[int] = count(1)
        self._stack = stack
        self._settings = {"broker__url": broker_url, "lcm__url": lcm.url, **QUICK, **settings}

    async def join(self, **settings: object) -> Worker:
        """Start one more."""
        one = Worker(**(self._settings | {"worker__name": f"w-{next(self._names)}"} | settings))
        self.workers.append(await self._stack.enter_async_context(one))
        return one

    async def work_on(self, jobs: Coroutine[Any, Any, None]) -> None:
        """Have jobs published for as long as the test lasts."""
        await self._stack.enter_async_context(running(jobs))

    def shares(self) -> list[int]:
        """The share of each worker that runs, as it said last."""
        running = [each for each in self.workers if each.process.returncode is None]
        return [stats[-1]["fleet_sessions"] for each in running if (stats := each.of("worker.stats"))]

    async def shared(self, *shares: int) -> None:
        """Wait until the workers have these shares, and as many sessions are open."""
        await until(lambda: self.shares() == list(shares), deadline=60)
        await until(lambda: self.lcm.sessions == sum(shares), deadline=60)
        assert self.lcm.peak_sessions <= LIMIT


@asynccontextmanager
async def fleet(vhost: str, **settings: object) -> AsyncIterator[tuple[Fleet, AbstractChannel]]:
    """Give a fleet whose jobs never end, since LCM takes a while for each."""
    lcm = Simulator(Behaviour(delay=0.05), ping_interval=2)  # sessions of a worker that is stopped end
    async with lcm, open_channel(vhost) as channel, AsyncExitStack() as stack:
        yield Fleet(vhost, lcm, stack, **settings), channel


async def until_depth(channel: AbstractChannel, results: int) -> None:
    async def there() -> bool:
        return await depth(channel, RESULTS) >= results

    await until(there)


async def keep_busy(channel: AbstractChannel) -> None:
    """Publish jobs as long as the test lasts."""
    for n in count():
        await publish(channel, *[job | {"job_id": f"{n}-{job['job_id']}"} for job in numbered(50)])
        await asyncio.sleep(0.3)


async def test_shares_of_workers_that_join_leave_and_die(vhost: str) -> None:
    """All sessions of the limit are in use, and never one more, whoever comes and goes."""
    async with fleet(vhost) as (workers, channel):
        first = await workers.join()
        await first.logged("worker.ready")
        await workers.work_on(keep_busy(channel))
        await workers.shared(5)
        second = await workers.join()
        await workers.shared(4, 3)
        third = await workers.join()
        await workers.shared(3, 2, 2)
        first.signal(signal.SIGTERM)
        assert await first.ended() == 0
        await workers.shared(4, 3)
        second.signal(signal.SIGKILL)
        await second.ended()
        await workers.shared(5)
        assert third.of("fleet.share_lapsed") == []
        assert workers.lcm.peak_sessions <= LIMIT
        assert workers.lcm.violations == 0


async def test_a_worker_without_a_share_stands_by(vhost: str) -> None:
    """With more workers than sessions the last one is ready, takes no jobs, and takes over when another leaves."""
    async with fleet(vhost, lcm__fleet_sessions=1) as (workers, channel):
        first = await workers.join()
        await first.logged("worker.ready")
        second = await workers.join()
        await until(lambda: workers.shares() == [1, 0])
        await publish(channel, *numbered(20))
        await until_depth(channel, 20)
        assert second.of("job.") == []
        assert [line["reason"] for line in second.of("worker.paused")] == ["no_share"]
        assert first.of("worker.paused") == []
        assert first.of("worker.stats")[-1]["fleet_workers"] == 2
        first.signal(signal.SIGTERM)
        assert await first.ended() == 0
        await second.logged("worker.resumed")
        await publish(channel, *numbered(20))
        await second.logged("job.succeeded", 20)
        assert workers.lcm.peak_sessions == 1


async def test_a_worker_that_is_cut_from_the_broker_gives_its_share_up_in_time(vhost: str) -> None:
    """It asks nothing once its beats are not read back, closes what it has, and begins again with the broker's return.

    The other one has taken over by then, and nothing is charged to a job.
    """
    async with (
        fleet(vhost) as (workers, channel),
        Proxy(RawConversation, vhost) as proxy,
    ):
        cut = await workers.join(broker__url=proxy.url)
        await cut.logged("worker.ready")
        other = await workers.join()
        await workers.work_on(keep_busy(channel))
        await workers.shared(4, 3)
        proxy.freeze()
        await cut.logged("fleet.share_lapsed")
        await until(lambda: other.of("worker.stats")[-1]["fleet_sessions"] == 5, deadline=60)
        await until(lambda: workers.lcm.sessions == 5)
        proxy.thaw()
        proxy.reset()
        await until(lambda: sorted(workers.shares()) == [3, 4], deadline=60)
        assert workers.lcm.peak_sessions <= LIMIT
        assert {line["attempts"] for each in workers.workers for line in each.of("job.succeeded")} <= {0, 1}


async def test_a_worker_that_was_stopped_uses_nothing_that_others_have(vhost: str) -> None:
    """A worker that goes on after a stop gives its sessions up before it asks anything: others have them."""
    async with fleet(vhost) as (workers, channel):
        first = await workers.join()
        await first.logged("worker.ready")
        second = await workers.join()
        await workers.work_on(keep_busy(channel))
        await workers.shared(4, 3)
        first.signal(signal.SIGSTOP)
        await until(lambda: second.of("worker.stats")[-1]["fleet_workers"] == 1, deadline=60)
        await until(
            lambda: second.of("worker.stats")[-1]["busy"] + second.of("worker.stats")[-1]["idle"] == 5
        )
        first.signal(signal.SIGCONT)
        await until(lambda: [line["reason"] for line in first.of("worker.paused")] == ["no_share"])
        await first.logged("worker.resumed")
        await until(lambda: sorted(workers.shares()) == [3, 4], deadline=60)
        assert workers.lcm.peak_sessions <= LIMIT


async def test_the_least_limit_of_all_holds(vhost: str) -> None:
    """Where settings differ, the least limit is the one of all, and that they differ is told."""
    async with fleet(vhost) as (workers, channel):
        first = await workers.join()
        await first.logged("worker.ready")
        await workers.work_on(keep_busy(channel))
        await workers.shared(5)
        second = await workers.join(lcm__fleet_sessions=3)
        await workers.shared(2, 1)
        [told] = await first.logged("fleet.limits_differ")
        assert told["limits"] == {"w-1": [LIMIT, 0.0], "w-2": [3, 0.0]}
        second.signal()
        await second.ended()
        await workers.shared(5)


async def test_a_worker_without_a_limit_is_seen_and_keeps_to_none(vhost: str) -> None:
    """It beats where others have made the log, has no share, and leaves theirs alone."""
    async with fleet(vhost) as (workers, _):
        first = await workers.join()
        await first.logged("worker.ready")
        free = await workers.join(lcm__fleet_sessions=0)
        await free.logged("worker.ready")
        await until(lambda: first.of("worker.stats")[-1]["fleet_workers"] == 2)
        assert first.of("worker.stats")[-1]["fleet_sessions"] == 5
        assert "fleet_sessions" not in free.of("worker.stats")[-1]
        [told] = await first.logged("fleet.limits_differ")
        assert told["limits"]["w-2"] == [0, 0.0]


async def test_exchanges_of_all_keep_to_one_rate(vhost: str) -> None:
    """Shares of the rate are told, and add up to it."""
    async with fleet(vhost, lcm__fleet_sessions=0, lcm__fleet_rate=30) as (workers, _):
        for _ in range(3):
            await (await workers.join()).logged("worker.ready")
        await until(
            lambda: [each.of("worker.stats")[-1].get("fleet_rate") for each in workers.workers] == [10.0] * 3
        )
        assert workers.shares() == [None] * 3


async def test_a_log_that_was_made_anew_is_read_from_its_beginning(vhost: str) -> None:
    """Where somebody deletes the stream under the workers, they begin anew with another, within the limit."""
    async with fleet(vhost) as (workers, channel):
        for _ in range(2):
            await (await workers.join()).logged("worker.ready")
        await until(lambda: workers.shares() == [4, 3])
        await channel.queue_delete("lcm.outcome.fleet")
        await until(lambda: all(each.of("broker.lost") for each in workers.workers), deadline=60)
        third = await workers.join()
        await third.logged("worker.ready")
        await until(lambda: sorted(workers.shares()) == [2, 2, 3], deadline=60)


async def test_status_and_check_tell_of_the_fleet(vhost: str) -> None:
    """Each worker that runs with its share, what it has and why it is paused; the limit; none that has left."""
    async with fleet(vhost, lcm__fleet_sessions=1) as (workers, _):
        first = await workers.join()
        await first.logged("worker.ready")
        await workers.join()
        third = await workers.join()
        await until(lambda: workers.shares() == [1, 0, 0])
        third.signal()
        await third.ended()
        ended = await command("status", "--json", broker__url=vhost)
        told = msgspec.json.decode(ended.out)["workers"]
        assert told["limit"] == {"sessions": 1, "rate": 0.0}
        assert [(each["name"], each["share"], each["sessions"], each["paused"]) for each in told["seen"]] == [
            ("w-1", 1, 1, []),
            ("w-2", 0, 0, ["no_share"]),
        ]
        shown = await on_terminal("status", broker__url=vhost, columns=100)
        assert "1 sessions for 2 workers together; sessions open: 1" in shown.out
        assert re.search(r"w-2 +\d s ago +0 +0 +no: no_share", shown.out)
        checked = await command("check", broker__url=vhost, lcm__url=workers.lcm.url, lcm__fleet_sessions=1)
        assert re.search(r"ok +fleet: 1 sessions for all workers of this prefix", checked.out)
        assert checked.status == 0
