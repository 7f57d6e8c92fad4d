"""Puts the worker together, runs it, and takes it apart in order."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any

from worker import __version__
from worker.broker.consumer import Consumer
from worker.broker.publisher import Publisher
from worker.broker.replies import Replies
from worker.broker.topology import DEAD_KEY, topology_of
from worker.disposition import Disposition
from worker.guard import Guard
from worker.health import HealthServer
from worker.keepers import GuardKeeper, OutageKeeper
from worker.lcm.breaker import Breaker
from worker.lcm.lookup import build_lookup
from worker.lcm.pool import Pool
from worker.lcm.session import SessionOpener
from worker.metrics import Metrics
from worker.pipeline import Pipeline, Routes
from worker.report import Report
from worker.settings import Settings
from worker.status import Status, pages_of
from worker.telemetry import Log

_LAST_REPLIES = 2.0  # seconds that replies to callers, which are best effort, may keep a worker from its end


class App:
    """One worker. `run` until `stop`; a second `stop` gives up what is in hand, which the broker keeps."""

    def __init__(self, settings: Settings, log: Log) -> None:
        self._settings = settings
        self._log = log
        name = settings.worker.name
        topology = topology_of(settings.broker)
        routes = Routes(topology.results, topology.retry, topology.dead, DEAD_KEY, topology.retry_steps)
        outage = settings.outage
        self.outages = OutageKeeper(Breaker(outage.failures, outage.probe_delay, outage.probe_max_delay), log)
        self.guard = GuardKeeper(
            Guard(settings.guard.window, settings.guard.ratio), log, pause=outage.probe_max_delay
        )
        self.pool = Pool(
            SessionOpener(settings.lcm, name),
            settings.lcm,
            outage,
            log,
            on_away=self.outages.session_not_opened,
            on_opened=self.outages.session_opened,
        )
        self.metrics = Metrics(version=__version__)
        self.publisher = Publisher(
            settings.broker,
            topology,
            log,
            worker=name,
            hold=outage.hold,
            count=self.metrics.published,
        )
        self.replies = Replies(self.publisher.link, settings.broker, log)
        self.report = Report(log)
        look_up = build_lookup(
            self.pool, settings.lcm, settings.retry, keeper=self.outages, count=self.metrics.exchanged
        )
        pipeline = Pipeline(
            look_up,
            self.publisher.publish,
            routes,
            worker=name,
            delivery_limit=settings.broker.delivery_limit,
            reply=self.replies,
        )
        self.consumer = Consumer(
            settings.broker,
            topology,
            log,
            handle=pipeline,
            defer=pipeline.defer,
            report=self._ended,
            worker=name,
        )
        self.outages.attach(self.pool, self.consumer)
        self.guard.attach(self.consumer)
        self.status = Status(self.consumer, self.publisher.link, self.pool, self.outages)
        self._stopping = asyncio.Event()
        self._giving_up = asyncio.Event()

    def stop(self) -> None:
        """Ask for an orderly end; asked again, for one at once."""
        if self._stopping.is_set():
            self._giving_up.set()
        self._stopping.set()

    async def run(self) -> None:
        """Work until stopped.

        Raises:
            TopologyError: the broker's entities are not as the settings ask.
            SettingsError: the address of `health.listen` can't be had.
        """
        async with AsyncExitStack() as serving:
            if address := self._settings.health.address:
                pages = pages_of(self.status, self.metrics)
                await serving.enter_async_context(HealthServer(address, pages, self._log))
            await self._work()

    async def _work(self) -> None:
        self._log.info("worker.started", version=__version__, pid=os.getpid(), **self._whereabouts())
        publish_link = _task(self.publisher.link.run(), "publish-link")
        consume_link = _task(self.consumer.link.run(), "consume-link")
        others = [
            _task(self._get_ready(), "get-ready"),
            _task(self._watch_lcm(), "watch-lcm"),
            _task(self._log_stats(), "stats"),
            _task(self.replies.run(), "replies"),
        ]
        self.status.supervisors = (publish_link, consume_link)
        stopping = _task(self._stopping.wait(), "stopping")
        try:
            await asyncio.wait({stopping, publish_link, consume_link}, return_when=asyncio.FIRST_COMPLETED)
            if self._stopping.is_set():
                self.status.draining = True
                await self._drain()
                await self.replies.flush(_LAST_REPLIES)
            for link in (consume_link, publish_link):
                if link.done():
                    link.result()
        finally:
            await self.outages.stop()
            await self.guard.stop()
            await self.consumer.give_up()
            # Closing the consuming link hands back what was given up, so the sessions in use may go.
            await _cancel(stopping, *others, consume_link)
            await self.pool.close()
            await _cancel(publish_link)
            self._log.info("worker.stopped", totals=dict(self.report.totals))

    async def _drain(self) -> None:
        self._log.info("worker.draining", in_flight=self.consumer.in_flight)
        draining = _task(self.consumer.drain(self._settings.worker.shutdown_grace), "drain")
        giving_up = _task(self._giving_up.wait(), "giving-up")
        try:
            await asyncio.wait({draining, giving_up}, return_when=asyncio.FIRST_COMPLETED)
            left = draining.result() if draining.done() else await self.consumer.give_up()
            if left:
                self._log.warning("worker.gave_up", deliveries=left, reason="they go back to the broker")
        finally:
            await _cancel(draining, giving_up)

    def _ended(self, disposition: Disposition) -> None:
        self.report(disposition)
        self.guard(disposition)
        self.metrics.ended(disposition)

    async def _get_ready(self) -> None:
        """Open a first session before a job needs it, so that what is wrong with LCM shows at once."""
        opened = False
        while not opened:
            # Whoever waits for one is turned away when an outage starts; then it is waited out.
            opened = await self.pool.try_one()
        self.status.reached_lcm = True
        await self.publisher.link.channel()
        await self.consumer.link.channel()
        self._log.info("worker.ready", prefetch=self._settings.broker.prefetch)

    async def _watch_lcm(self) -> None:
        """Notice that LCM is gone even where no job asks for it: ready means that it is in reach."""
        longest = self._settings.outage.probe_max_delay
        while True:
            await asyncio.sleep(random.uniform(longest / 2, longest))  # noqa: S311 - no secret
            if not self.outages.out:
                await self.pool.look()

    async def _log_stats(self) -> None:
        while True:
            await asyncio.sleep(self._settings.log.stats_interval)
            self._log.info(
                "worker.stats",
                in_flight=self.consumer.in_flight,
                consuming=self.consumer.consuming,
                publishing=self.publisher.link.is_up,
                **self.pool.counts(),
                **self.report.totals,
            )

    def _whereabouts(self) -> dict[str, Any]:
        return {
            "lcm": repr(self._settings.lcm.url).strip("'"),
            "broker": repr(self._settings.broker.url).strip("'"),
            "prefix": self._settings.broker.prefix,
            "sessions": self._settings.lcm.sessions,
        }


async def serve(settings: Settings, log: Log) -> None:
    """Run a worker in this process until SIGTERM or SIGINT; raises as `App.run`."""
    app = App(settings, log)
    loop = asyncio.get_running_loop()
    with _Signals(loop, app.stop):
        await app.run()


class _Signals:
    """Calls `stop` for each SIGTERM and SIGINT while it is entered."""

    _NUMBERS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self, loop: asyncio.AbstractEventLoop, stop: Callable[[], None]) -> None:
        self._loop = loop
        self._stop = stop

    def __enter__(self) -> None:
        for number in self._NUMBERS:
            self._loop.add_signal_handler(number, self._stop)

    def __exit__(self, *_: object) -> None:
        for number in self._NUMBERS:
            self._loop.remove_signal_handler(number)


def _task(coroutine: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
    return asyncio.get_running_loop().create_task(coroutine, name=name)


async def _cancel(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
