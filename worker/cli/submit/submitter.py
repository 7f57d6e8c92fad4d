"""One submission from its first reading to its summary."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from worker.broker.submission import Submission, first_of, give_up, look_first
from worker.broker.subscription import Subscription
from worker.broker.topology import JOB_KEY, topology_of
from worker.job import MAX_SHORT_STRING
from worker.message import Message, Properties
from worker.result import CONTENT_TYPE
from worker.settings import Settings
from worker.submitting.jobs import Asked, Bad, Defaults, Survey, digest, read_jobs
from worker.submitting.reading import BadInput
from worker.submitting.results import Result, ResultWriter, read_result
from worker.submitting.screen import Bar, Notices, Screen
from worker.submitting.sources import Source
from worker.submitting.tally import Collected, Published
from worker.text import cut

_SHOWN_EVERY = 0.1
_POLL = 0.1


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to submit, and how. Times are seconds; without a `writer` no results are collected.

    `queue` is for the results of this run, `again` the command that goes on collecting them; it `keeps` them where a
    later run can look them up. With `collect_only` an earlier run has published the jobs: nothing is published, and
    results are awaited but for those that it `had`, by the digests of their jobs.
    """

    queue: str
    again: str
    keeps: bool
    collect_only: bool
    had: AbstractSet[bytes]
    sources: Sequence[Source]
    defaults: Defaults
    survey: Survey
    from_line: int
    patience: float
    rate: float
    timeout: float | None
    writer: ResultWriter | None


class Submitter:
    """Publishes the jobs of a plan and collects their results; `stop` set ends it early, but in good order."""

    def __init__(self, plan: Plan, settings: Settings, screen: Screen) -> None:
        self.published = Published()
        self.collected = Collected()
        self.stop = asyncio.Event()
        self._plan = plan
        self._settings = settings.broker
        self._topology = topology_of(settings.broker)
        self._screen = screen
        self._name = f"{settings.worker.name} submit"
        self._subscription: Subscription | None = None
        self._last_came = 0.0

    @property
    def queue_left(self) -> str:
        """The queue that still waits for results, "" where there is none."""
        return self._subscription.queue if self._subscription is not None else ""

    async def run(self) -> None:
        """Do it all.

        Raises:
            BrokerAway: the broker doesn't answer, or was away for too long.
            TopologyError: an exchange or the queue for jobs is missing.
            BadInput: a file was changed since it was checked.
            OSError: results can't be written.
        """
        wait = self._plan.writer is not None
        queue = self._plan.queue if self._plan.collect_only else ""
        await look_first(self._settings, self._topology, results=wait, queue=queue, name=self._name)
        names = ["published"] * (not self._plan.collect_only) + ["collected"] * wait
        with self._screen.bars(names, self._plan.survey.jobs) as bars:
            async with _beside(self._show(bars)):
                if self._plan.writer is None:
                    await self._publish()
                else:
                    await self._publish_and_collect(self._plan.writer)

    async def _publish(self) -> None:
        submission = Submission(
            self._settings,
            self._topology,
            Notices(self._screen, "publishing"),
            name=self._name,
            patience=self._plan.patience,
            rate=self._plan.rate,
        )
        await submission.publish(self._jobs(), self._message, self.published.arrived, self.stop)

    async def _publish_and_collect(self, writer: ResultWriter) -> None:
        writer.begin()
        if self._plan.collect_only:
            self._await_all()

        async def take(bodies: list[bytes]) -> None:
            results = [result for body in bodies if (result := self._awaited(body)) is not None]
            # A reader of a pipe may take its time; meanwhile the connections have to be kept alive.
            await asyncio.to_thread(writer.write, results)

        subscription = self._subscription = Subscription(
            self._settings,
            self._topology,
            Notices(self._screen, "collecting"),
            take,
            queue=self._plan.queue,
            routes=self._plan.survey.routes,
            name=self._name,
        )
        async with _beside(subscription.run()):
            await subscription.link.channel()  # bound before the first job goes
            if not self._plan.collect_only:
                await self._publish()
            await self._collect(subscription)
            if not self.collected.missing:
                await subscription.delete()
                self._subscription = None

    async def _collect(self, subscription: Subscription) -> None:
        """Wait for all results, or until none has come for too long."""
        ends = (
            self._all_came(),
            self.stop.wait(),
            give_up(subscription.link, self._plan.patience),
        )
        tasks = [asyncio.ensure_future(end) for end in ends]
        try:
            await first_of(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _all_came(self) -> None:
        self._last_came = time.monotonic()
        timeout = self._plan.timeout
        while self.collected.missing:
            if timeout is not None and time.monotonic() - self._last_came > timeout:
                return
            await asyncio.sleep(_POLL)

    def _awaited(self, body: bytes) -> Result | None:
        result = read_result(body)
        if result is None or not self.collected.takes(result):
            return None
        self._last_came = time.monotonic()
        return result

    def _await_all(self) -> None:
        """Expect the results of an earlier run, before any of them can come."""
        for job in read_jobs(self._plan.sources, self._plan.defaults, self._plan.from_line):
            if isinstance(job, Asked) and digest(job.job_id) not in self._plan.had:
                self.collected.awaits(job.job_id)

    def _jobs(self) -> Iterator[Asked]:
        for job in read_jobs(self._plan.sources, self._plan.defaults, self._plan.from_line):
            if isinstance(job, Bad):
                if not self._plan.survey.bad:
                    name = self._plan.sources[job.source].name
                    raise BadInput(f"{name}: line {job.line} has changed since it was checked: {job.mistake}")
                continue
            self.published.handed_out(job)
            if self._plan.writer is not None:
                self.collected.awaits(job.job_id)
            yield job

    def _message(self, job: Asked) -> Message:
        properties = Properties(
            content_type=CONTENT_TYPE,
            message_id=cut(job.job_id, MAX_SHORT_STRING),
            timestamp=datetime.now(UTC),
        )
        return Message(self._topology.jobs, JOB_KEY, job.body, properties)

    async def _show(self, bars: list[Bar]) -> None:
        while True:
            self._show_once(bars)
            await asyncio.sleep(_SHOWN_EVERY)

    def _show_once(self, bars: list[Bar]) -> None:
        jobs, published, collected = self._plan.survey.jobs, self.published.confirmed, self.collected.count
        done = [(published, jobs), (collected, jobs)]
        if self._plan.collect_only:
            done = [(collected, collected + self.collected.missing)]
        for bar, (count, total) in zip(bars, done, strict=False):
            bar.show(count, total)


@asynccontextmanager
async def _beside(work: Coroutine[Any, Any, object]) -> AsyncIterator[None]:
    """Have something run beside; what fails first, there or here, ends both and is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(work)
            yield
            task.cancel()
    except BaseExceptionGroup as failed:
        raise _first(failed) from failed


def _first(failed: BaseExceptionGroup[BaseException]) -> BaseException:
    inner = failed.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner
