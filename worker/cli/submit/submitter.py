"""Publishes the jobs of a plan and collects their results, over connections that may be lost meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from worker.broker.admin.submission import Submission, check_topology, fail_when_away, wait_for_any
from worker.broker.admin.subscription import Subscription
from worker.broker.topology import JOB_KEY, topology_of
from worker.cli.submit.held import Held
from worker.cli.submit.jobs import BadLine, Defaults, InputJob, Survey, digest, read_jobs
from worker.cli.submit.output import ResultWriter
from worker.cli.submit.reading import BadInput
from worker.cli.submit.request import Request
from worker.cli.submit.results import Result, read_result
from worker.cli.submit.screen import Bar, NoticeLog, Screen
from worker.cli.submit.sources import Source
from worker.cli.submit.tally import Collected, Published
from worker.common.tasks import cancel, start
from worker.common.text import cut
from worker.common.threads import in_thread
from worker.contract.job import MAX_SHORT_STRING
from worker.contract.message import MILLISECONDS_HEADER, Message, Properties
from worker.contract.result import CONTENT_TYPE
from worker.settings import Settings

_REFRESH = 0.1
_POLL = 0.1


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to submit: a request, and what reading its files has shown.

    `queue` is for the results of this run, `held` what the file for results holds already.
    """

    request: Request
    sources: Sequence[Source]
    defaults: Defaults
    survey: Survey
    queue: str
    held: Held

    def jobs(self) -> Iterator[InputJob | BadLine]:
        """Read the jobs once more, as the survey did."""
        return read_jobs(self.sources, self.defaults, self.request.from_line)


class Submitter:
    """Carries out a plan. To end it early but in good order, set `stop`.

    Without a `writer` no results are collected.
    """

    def __init__(self, plan: Plan, writer: ResultWriter | None, settings: Settings, screen: Screen) -> None:
        self.published = Published()
        self.collected = Collected()
        self.stop = asyncio.Event()
        self._plan = plan
        self._request = plan.request
        self._writer = writer
        self._settings = settings.broker
        self._topology = topology_of(settings.broker)
        self._screen = screen
        self._name = f"{settings.worker.name} submit"
        self._subscription: Subscription | None = None
        self._unwritten = 0
        self._last_result_at = 0.0

    @property
    def queue_left(self) -> str:
        """The queue that still waits for results, "" where there is none."""
        return self._subscription.queue if self._subscription is not None else ""

    async def run(self) -> None:
        """Publish, and return once all results were collected, none has come for the timeout, or `stop` is set.

        Raises:
            BrokerAway: the broker doesn't answer, or was away for too long.
            TopologyError: an exchange or the queue for jobs is missing, or a permission is.
            BadInput: a file was changed since it was checked.
            OSError: results can't be written.
        """
        publishes, collects = self._request.publishes, self._writer is not None
        others = await check_topology(
            self._settings,
            self._topology,
            results=collects,
            queue="" if publishes else self._plan.queue,
            name=self._name,
        )
        if others:
            self._screen.note(
                f"another run, or one whose connection the broker has not given up yet, takes results from"
                f" {self._plan.queue}: each result comes to one of you alone"
            )
        names = ["published"] * publishes + ["collected"] * collects
        with self._screen.bars(names, self._plan.survey.jobs) as bars:
            async with _background(self._update(bars)):
                if self._writer is None:
                    await self._publish()
                else:
                    await self._publish_and_collect(self._writer)

    async def _publish(self) -> None:
        submission = Submission(
            self._settings,
            self._topology,
            NoticeLog(self._screen, "publishing"),
            name=self._name,
            max_outage=self._request.max_outage,
            rate=self._request.rate,
        )
        await submission.publish(self._jobs(), self._message, self.published.confirm, self.stop)

    async def _publish_and_collect(self, writer: ResultWriter) -> None:
        writer.begin()
        if self._plan.held.torn is not None:
            self._screen.note(
                f"{self._request.output} ended in the middle of a result: cut off, it comes again"
            )
        if not self._request.publishes:
            self._expect_all()

        async def write(bodies: list[bytes]) -> None:
            results = [result for body in bodies if (result := self._accept(body)) is not None]
            self._unwritten += len(results)
            # In a thread: the reader of a pipe may be slow, and the connections must be kept alive meanwhile.
            await in_thread(partial(writer.write, results), "write-results")
            self._unwritten -= len(results)

        subscription = self._subscription = Subscription(
            self._settings,
            self._topology,
            NoticeLog(self._screen, "collecting"),
            write,
            queue=self._plan.queue,
            routes=self._plan.survey.routes,
            name=self._name,
        )
        async with _background(subscription.run()):
            await subscription.link.channel()  # so that the queue is bound before the first job is published
            if self._request.publishes:
                await self._publish()
            await self._collect(subscription)
            if self._is_complete:
                await subscription.delete()
                self._subscription = None

    async def _collect(self, subscription: Subscription) -> None:
        """Wait until all results were collected, none has come for the timeout, or `stop` is set."""
        ends = [
            start(self._all_collected()),
            start(self.stop.wait()),
            start(fail_when_away(subscription.link, self._request.max_outage)),
        ]
        try:
            await wait_for_any(*ends)
        finally:
            await cancel(*ends)

    @property
    def _is_complete(self) -> bool:
        """Whether all results have come and are written: before that, the queue must keep them."""
        return not (self.collected.missing or self._unwritten)

    async def _all_collected(self) -> None:
        self._last_result_at = time.monotonic()
        timeout = self._request.timeout
        while not self._is_complete:
            waited = time.monotonic() - self._last_result_at
            # Whoever reads what is written may be slow; that is no reason to leave it unwritten.
            if timeout is not None and waited > timeout and not self._unwritten:
                return
            await asyncio.sleep(_POLL)

    def _accept(self, body: bytes) -> Result | None:
        """Read and count a result; None where it is none, or none of these jobs."""
        result = read_result(body)
        if result is None or not self.collected.accept(result):
            return None
        self._last_result_at = time.monotonic()
        return result

    def _expect_all(self) -> None:
        """Expect the results of an earlier run, before any of them can come."""
        for job in self._plan.jobs():
            if isinstance(job, InputJob) and digest(job.job_id) not in self._plan.held.jobs:
                self.collected.expect(job.job_id, job.account_number)

    def _jobs(self) -> Iterator[InputJob]:
        """Yield the jobs as they are published; each is counted as sent, and its result expected, before that."""
        for job in self._plan.jobs():
            if isinstance(job, BadLine):
                if not self._plan.survey.bad:
                    name = self._plan.sources[job.source].name
                    raise BadInput(f"{name}: line {job.line} has changed since it was checked: {job.mistake}")
                continue
            self.published.send(job)
            if self._writer is not None:
                self.collected.expect(job.job_id, job.account_number)
            yield job

    def _message(self, job: InputJob) -> Message:
        now = datetime.now(UTC)
        properties = Properties(
            content_type=CONTENT_TYPE,
            headers={MILLISECONDS_HEADER: int(now.timestamp() * 1000)},
            message_id=cut(job.job_id, MAX_SHORT_STRING),
            timestamp=now,
        )
        return Message(self._topology.jobs, JOB_KEY, job.body, properties)

    async def _update(self, bars: list[Bar]) -> None:
        while True:
            for bar, (count, total) in zip(bars, self._progress(), strict=False):
                bar.update(count, total)
            await asyncio.sleep(_REFRESH)

    def _progress(self) -> list[tuple[int, int]]:
        """Return how much is done and to do, for each bar."""
        jobs, published, collected = self._plan.survey.jobs, self.published.confirmed, self.collected.count
        if self._request.publishes:
            return [(published, jobs), (collected, jobs)]
        return [(collected, collected + self.collected.missing)]


@asynccontextmanager
async def _background(work: Coroutine[Any, Any, object]) -> AsyncIterator[None]:
    """Run a coroutine in the background while inside; the first error, there or here, ends both and is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(work)
            yield
            task.cancel()
    except BaseExceptionGroup as errors:
        raise _first(errors) from errors


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    inner = errors.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner
