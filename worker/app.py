"""Composes the worker from its components, runs it, and shuts it down in order."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import Any

from worker import __version__
from worker.broker.consumer import Consumer
from worker.broker.delivery import own_users
from worker.broker.fleet import Fleet
from worker.broker.outbox import Outbox
from worker.broker.publisher import Publisher
from worker.broker.replies import Replies
from worker.broker.topology import topology_of
from worker.broker.unconsumed import Unconsumed
from worker.broker.undelivered import Resender
from worker.common.clock import SYSTEM_CLOCK
from worker.common.rate import Rate
from worker.common.signals import on_stop_signal
from worker.common.tasks import cancel, start
from worker.common.threads import in_thread
from worker.contract.disposition import Disposition
from worker.contract.errors import Deferred
from worker.contract.intake import PauseReason
from worker.contract.job import Producer
from worker.guard import Guard
from worker.lcm.breaker import Breaker
from worker.lcm.handshake import SessionOpener
from worker.lcm.lookup import build_lookup
from worker.lcm.outage import OutageMonitor, Prober
from worker.lcm.places import Places
from worker.lcm.pool import Pool
from worker.lcm.share import ShareKeeper, seat_for
from worker.observability.failures import Failures
from worker.observability.http import HealthServer
from worker.observability.job_log import JobLog
from worker.observability.log import RecordLog
from worker.observability.metrics import Metrics
from worker.observability.slowness import Slowness
from worker.observability.tracing import Tracer, Untraced
from worker.pipeline import Pipeline
from worker.settings import Scrubber, Settings, asks_for_traces, expiries_of
from worker.status import Status, pages_of

_COLLECT_AFTER = 7000  # objects made and not freed, ten times the interpreter's default
_READ_EXPIRIES_AFTER = 600.0  # seconds
_NO_TRACES = "install lcm-outcome-worker[otel], or set OTEL_TRACES_EXPORTER=none"
_ANEW_AFTER = 5.0  # seconds after which a task that a defect has ended is started anew
_LAST_REPLIES = 2.0  # seconds that the shutdown waits for replies to callers, which are best effort


class App:
    """One worker. `run` works until `stop`; a second `stop` gives up the jobs in hand, which the broker redelivers."""

    def __init__(self, settings: Settings, log: RecordLog, tracer: Tracer | None = None) -> None:
        tracer = tracer or Untraced()
        self._settings = settings
        self._log = log
        name = settings.worker.name
        hide = Scrubber(settings)
        broker, lcm, outage = settings.broker, settings.lcm, settings.outage
        topology = topology_of(broker, fleet=lcm.has_fleet_limit)
        self.metrics = Metrics(version=__version__)
        self.report = JobLog(log)
        self.failures = Failures()
        self.slowness = Slowness(log, settings.log.stats_interval)
        breaker = Breaker(outage.failures, outage.probe_delay, outage.probe_max_delay)
        self.outages = OutageMonitor(breaker, log)
        self.pool = Pool(
            SessionOpener(lcm, name, hide),
            lcm,
            outage,
            log,
            on_away=self.outages.session_not_opened,
            on_opened=self.outages.session_opened,
        )
        self.publisher = Publisher(broker, topology, log, worker=name, count=self.metrics.published)
        outbox = Outbox(
            self.publisher, topology, log, on_refusal=self._copies_refused, on_parked=self.metrics.parked
        )
        self.resender = Resender(
            outbox, self.publisher, topology, log, users=own_users(broker.urls), count=self.metrics.sent_again
        )
        self.replies = Replies(broker, log, worker=name)
        self.unconsumed = Unconsumed(self.publisher.link, topology.results, log, SYSTEM_CLOCK)
        rate = Rate(lcm.max_rate)
        look_up = build_lookup(
            self.pool,
            lcm,
            settings.retry,
            outages=self.outages,
            places=Places(broker.prefetch, topology.retry_steps[0].delay, SYSTEM_CLOCK),
            rate=rate,
            count=self._exchanged,
            traced=tracer.exchanging,
        )
        pipeline = Pipeline(
            look_up,
            tracer.publishing(outbox),
            topology,
            worker=name,
            delivery_limit=broker.delivery_limit,
            reply=self.replies,
            admit=self._admit,
        )
        self.consumer = Consumer(
            broker,
            topology,
            log,
            handle=tracer.handling(pipeline),
            defer=tracer.handling(pipeline.defer),
            report=self._ended,
            worker=name,
            paused=[PauseReason.NO_SHARE] if lcm.has_fleet_limit else [],
        )
        seat = seat_for(lcm, name)
        self.share = ShareKeeper(seat, lcm, self.pool, rate, intake=self.consumer, log=log)
        self.fleet = Fleet(
            seat,
            broker,
            topology_of(broker, fleet=True),
            log,
            worker=name,
            held=lambda: self.pool.held,
            paused=lambda: [reason.value for reason in self.consumer.paused],
            on_change=self.share,
        )
        self.prober = Prober(self.outages, self.pool, self.consumer, look_up, log)
        guard = settings.guard
        self.guard = Guard(
            guard.window,
            guard.ratio,
            self.consumer,
            self.consumer.depth,
            log,
            pause=outage.probe_max_delay,
        )
        self.status = Status(
            self.consumer,
            outbox,
            self.resender,
            self.pool,
            self.outages,
            share=self.share,
            guard=self.guard,
            dropped=log.dropped,
        )
        self.pages = pages_of(self.status, self.metrics, self.failures, worker=name, hide=hide)
        self._stopping = asyncio.Event()
        self._giving_up = asyncio.Event()

    def stop(self) -> None:
        """Ask for an orderly shutdown; called again, for an immediate one."""
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
                await serving.enter_async_context(HealthServer(address, self.pages, self._log))
            await self._work()

    async def _work(self) -> None:
        self._log.info("worker.started", version=__version__, pid=os.getpid(), **self._whereabouts())
        publish_link = start(self.publisher.link.run(), "publish-link")
        consume_link = start(self.consumer.link.run(), "consume-link")
        fleet = start(self._take_part(), "fleet")
        others = [
            self._keep_up(self._get_ready, "get-ready"),
            self._keep_up(self._watch_lcm, "watch-lcm"),
            self._keep_up(self._log_stats, "stats"),
            self._keep_up(self._watch_certificates, "watch-certificates"),
            self._keep_up(self.replies.run, "replies"),
            self._keep_up(self.resender.run, "resender"),
        ]
        if self._settings.broker.results_queue:
            others.append(self._keep_up(self.unconsumed.run, "unconsumed"))
        supervisors = (publish_link, consume_link, fleet)
        self.status.supervisors = supervisors
        stopping = start(self._stopping.wait(), "stopping")
        try:
            await asyncio.wait({stopping, *supervisors}, return_when=asyncio.FIRST_COMPLETED)
            if self._stopping.is_set():
                self.status.draining = True
                await self._drain()
                await self.replies.flush(_LAST_REPLIES)
            for supervisor in supervisors:
                if supervisor.done():
                    supervisor.result()
        finally:
            await self.prober.stop()
            await self.guard.stop()
            await self.consumer.give_up()
            # Closing the consuming link returns the deliveries that were given up; then their sessions can be closed.
            await cancel(stopping, *others, consume_link)
            await self.pool.close()
            await self.fleet.leave()
            await cancel(fleet, publish_link)
            self._log.info("worker.stopped", totals=dict(self.report.totals))

    def _keep_up(self, run: Callable[[], Awaitable[None]], name: str) -> asyncio.Task[None]:
        """Start a task that jobs can do without, and start it anew after a pause where a defect ends it."""

        async def keep_up() -> None:
            while True:
                try:
                    return await run()
                except Exception:  # noqa: BLE001 - whatever it is, the worker works on, and must not do so in silence
                    self._log.exception("worker.task_broke", task=name)
                await asyncio.sleep(_ANEW_AFTER)

        return start(keep_up(), name)

    async def _take_part(self) -> None:
        """Take part in the fleet: where a limit is shared as its member, else to be seen where there is one."""
        if self._settings.lcm.has_fleet_limit:
            await self.fleet.run()
        else:
            await self.fleet.run_beside(self.publisher.link)

    async def _drain(self) -> None:
        self._log.info("worker.draining", in_flight=self.consumer.in_flight)
        draining = start(self.consumer.drain(self._settings.worker.shutdown_grace), "drain")
        giving_up = start(self._giving_up.wait(), "giving-up")
        try:
            await asyncio.wait({draining, giving_up}, return_when=asyncio.FIRST_COMPLETED)
            left = draining.result() if draining.done() else await self.consumer.give_up()
            if left:
                self._log.warning("worker.gave_up", deliveries=left, reason="they go back to the broker")
        finally:
            await cancel(draining, giving_up)

    def _ended(self, disposition: Disposition) -> None:
        self.report(disposition)
        self.guard(disposition)
        self.metrics.ended(disposition)
        self.failures(disposition)

    def _exchanged(self, result: str, seconds: float) -> None:
        self.metrics.exchanged(result)
        self.slowness.exchanged(result, seconds)

    def _admit(self, producer: Producer) -> Deferred | None:
        return self.guard.admit(producer)

    def _copies_refused(self, refused: bool) -> None:
        (self.consumer.pause if refused else self.consumer.resume)(PauseReason.COPIES)

    async def _get_ready(self) -> None:
        """Open a first session before a job needs it, so that a wrong LCM setting shows at once."""
        opened = False
        while not opened:
            # Waiters are rejected when an outage starts; then it is waited out.
            opened = await self.pool.probe()
        self.status.reached_lcm = True
        await self.publisher.link.channel()
        await self.consumer.link.channel()
        self._log.info("worker.ready", prefetch=self._settings.broker.prefetch)

    async def _watch_lcm(self) -> None:
        """Notice that LCM is unreachable even while no job needs it: a ready worker can reach LCM."""
        longest = self._settings.outage.probe_max_delay
        while True:
            await asyncio.sleep(SYSTEM_CLOCK.jitter(longest / 2, longest))
            if not (self.outages.out or PauseReason.NO_SHARE in self.consumer.paused):
                await self.pool.ensure_session()

    async def _watch_certificates(self) -> None:
        """Read anew when certificates expire: connections that last for months would not see a renewed one."""
        while True:
            with suppress(RuntimeError):  # too many threads just now
                self.status.expiries = await in_thread(partial(expiries_of, self._settings), "read-expiries")
            await asyncio.sleep(_READ_EXPIRIES_AFTER)

    async def _log_stats(self) -> None:
        while True:
            await asyncio.sleep(self._settings.log.stats_interval)
            self._log.info(
                "worker.stats",
                in_flight=self.consumer.in_flight,
                consuming=self.consumer.consuming,
                publishing=self.publisher.link.is_up,
                **self.pool.counts(),
                **self._part(),
                **self.report.totals,
            )
            self.slowness.look(
                sessions=self.pool.held, waiting=self.pool.waiting, is_out=bool(self.outages.out)
            )

    def _part(self) -> dict[str, Any]:
        part = self.share.part()
        if part is None:
            return {}
        return {"fleet_workers": part.workers, "fleet_sessions": part.sessions, "fleet_rate": part.rate}

    def _whereabouts(self) -> dict[str, Any]:
        return {
            "lcm": repr(self._settings.lcm.url).strip("'"),
            "broker": repr(self._settings.broker.url).strip("'"),
            "prefix": self._settings.broker.prefix,
            "sessions": self._settings.lcm.sessions,
            "stats_interval": self._settings.log.stats_interval,
        }


async def serve(settings: Settings, log: RecordLog) -> None:
    """Run a worker in this process until SIGTERM, SIGINT or SIGHUP; raises as `App.run`."""
    tracer = _tracer_for(settings, log)
    app = App(settings, log, tracer)
    # What lives as long as the process is left out of each collection, and these come a tenth as often: a job makes
    # no cycles, so they find next to nothing.
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER)
    try:
        with on_stop_signal(app.stop):
            await app.run()
    finally:
        await tracer.close()


def _tracer_for(settings: Settings, log: RecordLog) -> Tracer:
    """Return what traces where OpenTelemetry's variables ask for it, and does nothing otherwise."""
    if not asks_for_traces():
        return Untraced()
    try:
        from worker.observability.spans import SpanTracer, exporting_provider  # noqa: PLC0415 - an extra
    except ImportError as error:
        log.warning("tracing.unavailable", reason=str(error), remedy=_NO_TRACES)
        return Untraced()
    provider = exporting_provider(settings.worker.name, __version__)
    return SpanTracer(provider, queue=topology_of(settings.broker).jobs, lcm_url=settings.lcm.url)
