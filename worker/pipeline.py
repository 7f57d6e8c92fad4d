"""One delivery's way: read the job, look up, normalize, publish; and what becomes of it where that fails.

A delivery's Disposition is returned only after the broker has confirmed what takes its place: the result, a copy
in a retry queue, or a copy in the dead-letter queue. So settling by it can't lose a job.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

from worker.broker.topology import DEAD_KEY, RetryStep, Topology
from worker.common.callbacks import ignore
from worker.common.clock import SYSTEM_CLOCK, Clock
from worker.contract import job_copies, result
from worker.contract.disposition import Disposition, Ending, Sent
from worker.contract.errors import (
    Deferred,
    Expired,
    FailureAction,
    GaveWay,
    InternalError,
    InvalidJob,
    JobError,
    MessageTooLarge,
    Poison,
    ResultTooLarge,
    StaleDelivery,
    remedy_for,
)
from worker.contract.job import Job, Producer
from worker.contract.job_reader import read_job
from worker.contract.lookup import Lookup, LookupRequest, LookupResult
from worker.contract.message import Delivery, Message, Properties
from worker.contract.outbox import Outbox
from worker.contract.trace_context import trace_id_of

Reply = Callable[[Message, str, Job], None]
"""Takes a result, the `reply_to` of its job and the job; does not wait, and never raises."""


T = TypeVar("T")


@dataclass(slots=True)
class JobRun:
    """One delivery in hand, from its arrival to its end."""

    delivery: Delivery
    arrived_at: datetime
    started: float
    job: Job
    request: LookupRequest
    lookup_result: LookupResult | None = None
    publish_seconds: float = 0.0

    @property
    def attempts(self) -> int:
        """The exchanges made for the job, over all its deliveries."""
        return self.job.attempts + self.request.exchanges


class Pipeline:
    """Handles deliveries, any number at the same time."""

    def __init__(
        self,
        look_up: Lookup,
        outbox: Outbox,
        topology: Topology,
        *,
        worker: str,
        delivery_limit: int,
        reply: Reply = ignore,
        admit: Callable[[Producer], Deferred | None] = ignore,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._look_up = look_up
        self._outbox = outbox
        self._topology = topology
        self._worker = worker
        self._delivery_limit = delivery_limit
        self._reply = reply
        self._admit = admit
        self._now = clock.now
        self._sleep = clock.sleep
        self._monotonic = clock.monotonic

    def __call__(self, delivery: Delivery) -> Coroutine[Any, Any, Disposition]:
        """Handle one delivery to its end. Never raises but by cancellation or where even failing failed."""
        return self._to_an_end(delivery)

    def defer(self, delivery: Delivery, reason: Deferred) -> Coroutine[Any, Any, Disposition]:
        """Defer a delivery that was not begun. Raises as `__call__`."""
        return self._to_an_end(delivery, reason)

    async def _to_an_end(self, delivery: Delivery, put_off: Deferred | None = None) -> Disposition:
        run, mistake = self._begin(delivery)
        try:
            try:
                if put_off is not None and put_off.if_there_is_time and not self._has_time(run):
                    put_off = None
                if reason := put_off or self._admit(run.job.producer):
                    return await self._defer(run, reason)
                return await self._handle(run, mistake)
            except Deferred as reason:
                return await self._defer(run, reason)
        except StaleDelivery:
            return self._end(run, Ending.STALE)
        except MessageTooLarge as error:
            return await self._reject(run, error)

    def _begin(self, delivery: Delivery) -> tuple[JobRun, InvalidJob | None]:
        arrived_at, started = self._now(), self._monotonic()
        try:
            job, mistake = read_job(delivery.body, delivery.properties), None
        except InvalidJob as error:
            # Without the frames, which hold the body, and this one the error: else it stays for the collector.
            job, mistake = error.job, error.with_traceback(None)
        request = LookupRequest(
            job.account_number,
            job.deadline,
            delivery.is_current,
            producer=job.producer.known,
            last_error=job.last_error,
        )
        return JobRun(delivery, arrived_at, started, job, request), mistake

    async def _handle(self, run: JobRun, mistake: InvalidJob | None) -> Disposition:
        if mistake is not None:
            return await self._fail(run, mistake)
        if run.delivery.delivery_count >= self._delivery_limit:
            return await self._fail(run, _poison(run.delivery.delivery_count))
        try:
            return await self._succeed(run)
        except JobError as error:
            return await self._remedy(run, error)
        except (Deferred, StaleDelivery):
            raise
        except Exception as error:  # noqa: BLE001 - a defect of the worker's must not cost the job
            return await self._remedy(run, _defect(error))

    async def _succeed(self, run: JobRun) -> Disposition:
        found = run.lookup_result = await self._look_up(run.request)
        message = result.succeeded(
            run.job, found, self._completion(run), amqp_exchange=self._topology.results
        )
        try:
            sent = await self._confirmed(run, self._outbox.result(message, run.delivery.is_current))
        except MessageTooLarge as error:
            raise ResultTooLarge(f"the result can't be published: {error}") from error
        self._reply_with(message, run)
        return self._end(run, Ending.SUCCEEDED, outcomes=len(found.items.normalized.outcomes), sent=sent)

    async def _remedy(self, run: JobRun, error: JobError) -> Disposition:
        match remedy_for(error):
            case FailureAction.RETRY if run.job.retries < len(self._topology.retry_steps):
                return await self._retry_later(run, error)
            case FailureAction.EXPIRE:
                return await self._expire(run, error)
        return await self._fail(run, error)

    async def _retry_later(self, run: JobRun, error: JobError) -> Disposition:
        step = self._topology.retry_steps[run.job.retries]
        run.request.note_failure(error)
        try:
            run.request.check(self._now() + timedelta(seconds=step.delay))
        except Expired as expired:
            return await self._expire(run, expired)
        properties = job_copies.retry_copy(run.delivery.properties, run.job, error, attempts=run.attempts)
        await self._retry(run, step.key, properties)
        return self._end(run, Ending.RETRY_LATER, error=error, delay=step.delay)

    async def _defer(self, run: JobRun, reason: Deferred) -> Disposition:
        """Put a copy that has used no retry delay into the first retry queue, or further with each pass."""
        passes = run.job.passes + reason.further
        step = self._deferral_step(run, further=reason.further)
        try:
            run.request.check(self._now() + timedelta(seconds=step.delay))
        except Expired as expired:
            try:
                return await self._expire(run, expired)
            except Deferred as again:
                reason = again
        delivery = run.delivery
        properties = job_copies.deferred_copy(
            delivery.properties,
            run.job,
            attempts=run.attempts,
            # Where LCM was asked for it, it killed nobody in all that time.
            delivery_count=0 if run.request.exchanges else delivery.delivery_count,
            passes=passes,
        )
        await self._retry(run, step.key, properties)
        # Where it had failed before it gave way, that tells of its producer's jobs as an end would.
        kind = run.request.failed_by if isinstance(reason, GaveWay) else None
        error = kind(str(reason)) if kind else None
        return self._end(run, Ending.DEFERRED, error=error, reason=str(reason), delay=step.delay)

    def _has_time(self, run: JobRun) -> bool:
        """Whether a job that is deferred comes again before its deadline."""
        again_at = self._now() + timedelta(seconds=self._topology.retry_steps[0].delay)
        return run.job.deadline is None or again_at < run.job.deadline

    def _deferral_step(self, run: JobRun, *, further: bool) -> RetryStep:
        """Return the first retry queue, or with each pass a further one, as far as the deadline lets."""
        first, *others = self._topology.retry_steps
        if not further:
            return first
        left = math.inf
        if run.job.deadline is not None:
            left = (run.job.deadline - self._now()).total_seconds()
        return [first, *(step for step in others[: run.job.passes] if step.delay < left)][-1]

    async def _reject(self, run: JobRun, error: MessageTooLarge) -> Disposition:
        """Fail a job of which the broker takes no copy, since a queue or its limit has changed meanwhile."""
        mistake = InvalidJob(f"no copy can be published: {error}", job=run.job)
        while True:
            try:
                return await self._tell_failed(run, mistake, Ending.REJECTED, has_dead_letter=True)
            except StaleDelivery:
                return self._end(run, Ending.STALE)
            except Deferred:
                # Nothing can take the job's place, so it keeps it until its failed result is taken.
                await self._sleep(self._topology.retry_steps[0].delay)

    async def _fail(self, run: JobRun, error: JobError) -> Disposition:
        """Dead-letter first, so that whoever gets the failed result finds the job in the dead-letter queue."""
        properties = job_copies.dead_copy(
            run.delivery.properties,
            run.job,
            error,
            attempts=run.attempts,
            failed_at=self._now(),
            worker=self._worker,
        )
        ending = Ending.FAILED
        try:
            letter = Message(self._topology.dead, DEAD_KEY, run.delivery.body, properties)
            await self._confirmed(run, self._outbox.dead(letter, run.delivery.is_current))
        except MessageTooLarge:
            # The broker moves what it rejects to the dead-letter queue itself, whatever its size.
            ending = Ending.REJECTED
        return await self._tell_failed(run, error, ending, has_dead_letter=True)

    async def _expire(self, run: JobRun, error: JobError) -> Disposition:
        return await self._tell_failed(run, error, Ending.FAILED, has_dead_letter=False)

    async def _tell_failed(
        self, run: JobRun, error: JobError, ending: Ending, *, has_dead_letter: bool
    ) -> Disposition:
        message = result.failed(run.job, error, self._completion(run), amqp_exchange=self._topology.results)
        publishing = self._outbox.result(message, run.delivery.is_current, has_dead_letter=has_dead_letter)
        try:
            sent = await self._confirmed(run, publishing)
        except MessageTooLarge:
            sent = Sent.RETURNED
        self._reply_with(message, run)
        return self._end(run, ending, error=error, sent=sent)

    def _completion(self, run: JobRun) -> result.Completion:
        return result.Completion(run.attempts, self._now(), self._since(run.started), self._worker)

    def _reply_with(self, message: Message, run: JobRun) -> None:
        if reply_to := run.delivery.properties.reply_to:
            self._reply(message, reply_to, run.job)

    async def _retry(self, run: JobRun, key: str, properties: Properties) -> None:
        copy = Message(self._topology.retry, key, run.delivery.body, properties)
        await self._confirmed(run, self._outbox.retry(copy, run.delivery.is_current))

    async def _confirmed(self, run: JobRun, publishing: Awaitable[T]) -> T:
        began = self._monotonic()
        try:
            return await publishing
        finally:
            run.publish_seconds += self._monotonic() - began

    def _end(
        self,
        run: JobRun,
        ending: Ending,
        *,
        outcomes: int = -1,
        error: JobError | None = None,
        delay: float | None = None,
        reason: str = "",
        sent: Sent | None = None,
    ) -> Disposition:
        return Disposition(
            ending,
            job_id=run.job.job_id,
            account=run.job.account_number,
            unread=run.job.unread,
            attempts=run.attempts,
            exchanges=run.request.exchanges,
            outcomes=outcomes,
            lookup_result=run.lookup_result,
            last_exchange=run.request.last_exchange,
            error=error,
            failed_by=run.request.failed_by,
            delay=delay,
            reason=reason,
            sent=sent,
            producer=run.job.producer,
            trace_id=trace_id_of(run.job.trace),
            queue_ms=_age(run.delivery.properties.published_at, run.arrived_at),
            publish_ms=round(run.publish_seconds * 1000, 1),
            duration_ms=self._since(run.started),
            redelivered=run.delivery.redelivered,
        )

    def _since(self, started: float) -> float:
        return round((self._monotonic() - started) * 1000, 1)


def _poison(delivery_count: int) -> Poison:
    return Poison(
        f"it came back {delivery_count} times without an end, as if it killed the workers that had it"
    )


def _defect(error: Exception) -> InternalError:
    defect = InternalError(f"a defect of the worker: {type(error).__name__}")
    defect.__cause__ = error
    return defect


def _age(published: datetime | None, arrived_at: datetime) -> float | None:
    """Return a message's age in milliseconds; the producer's clock may be ahead of ours."""
    if published is None:
        return None
    return max(0.0, round((arrived_at - published).total_seconds() * 1000, 1))
