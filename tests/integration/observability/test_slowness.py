"""A backlog that waits for LCM is told by a real worker."""

from __future__ import annotations

from tests.support.channel import open_channel
from tests.support.in_process import all_good, numbered, publish, quick, results, working
from tests.support.waiting import until
from worker.simulator.server import Behaviour, Simulator

SETTINGS = {"LCM__SESSIONS": 1, "LOG__STATS_INTERVAL": "1s", "LCM__REPLY_TIMEOUT": "30s"}


async def test_a_backlog_that_waits_for_lcm_is_told(vhost: str) -> None:
    """With one session and LCM that takes its time, all others wait."""
    async with (
        Simulator(Behaviour(delay=0.1)) as lcm,
        open_channel(vhost) as channel,
        working(quick(vhost, lcm.url, **SETTINGS)) as log,
    ):
        await publish(channel, *numbered(100))
        await until(lambda: "lcm.slow" in log.events)
        all_good(await results(channel, 100), 100)
    assert log.of("lcm.slow")[0]["lcm_ms"] >= 100
