"""One delivery's way: decode, look up, normalize, publish; and what becomes of it where that fails.

A delivery's Disposition is returned only after the broker has confirmed what takes its place: the result, a copy
in a retry queue, or a copy in the dead-letter queue. So settling by it can't lose a job.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

from worker import copies, result
from worker.disposition import Disposition, Settle
from worker.errors import (
    Expired,
    InternalError,
    InvalidJob,
    JobError,
    Poison,
    PutOff,
    Remedy,
    StaleDelivery,
    Unroutable,
    disposition_of,
)
from worker.inquiry import Answer, Inquiry
from worker.job import Job, decode
from worker.message import Delivery, Message, Properties


class LookUp(Protocol):
    """Asks LCM; raises JobError, StaleDelivery or PutOff."""

    def __call__(self, inquiry: Inquiry, /) -> Awaitable[Answer]: ...


class Publish(Protocol):
    """Publishes and returns once confirmed.

    Raises StaleDelivery; Unroutable where not told to `hold`; PutOff where a result was held too long.
    """

    def __call__(
        self, message: Message, is_wanted: Callable[[], bool], /, *, hold: bool = True
    ) -> Awaitable[None]: ...


class Reply(Protocol):
    """Takes a result for the caller whom its job named; does not wait, and never raises."""

    def __call__(self, result: Message, reply_to: str, job_id: str, /) -> None: ...


class RetryStep(Protocol):
    """One delay: its seconds, and the routing key of its queue."""

    @property
    def delay(self) -> float: ...
    @property
    def key(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Routes:
    """Where the pipeline's messages go."""

    results: str
    retry: str
    dead: str
    dead_key: str
    retry_steps: Sequence[RetryStep]


def _no_reply(*_: object) -> None:
    """Results go to the results exchange alone."""


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(slots=True)
class _Course:
    """One delivery in hand, from arrival to its end."""

    delivery: Delivery
    arrived_at: datetime
    started: float
    job: Job
    inquiry: Inquiry
    answer: Answer | None = None
    publish_seconds: float = 0.0

    @property
    def attempts(self) -> int:
        return self.job.attempts + self.inquiry.exchanges


class Pipeline:
    """Handles deliveries, any number at the same time."""

    def __init__(
        self,
        look_up: LookUp,
        publish: Publish,
        routes: Routes,
        *,
        worker: str,
        delivery_limit: int,
        reply: Reply = _no_reply,
        now: Callable[[], datetime] = _utc_now,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._look_up = look_up
        self._publish = publish
        self._routes = routes
        self._worker = worker
        self._delivery_limit = delivery_limit
        self._reply = reply
        self._now = now
        self._monotonic = monotonic

    async def __call__(self, delivery: Delivery) -> Disposition:
        """Handle one delivery to its end. Never raises but by cancellation or where even failing failed."""
        course, mistake = self._begin(delivery)
        try:
            if mistake is not None:
                return await self._fail(course, mistake)
            if delivery.returns >= self._delivery_limit:
                return await self._fail(course, _poison(delivery.returns))
            return await self._succeed_or_fail(course)
        except StaleDelivery:
            return self._end(course, Settle.NOT_AT_ALL, "job.stale")

    async def defer(self, delivery: Delivery, reason: PutOff) -> Disposition:
        """Defer a delivery that was not begun. Raises as `__call__`."""
        course, _ = self._begin(delivery)
        try:
            return await self._defer(course, reason)
        except StaleDelivery:
            return self._end(course, Settle.NOT_AT_ALL, "job.stale")

    def _begin(self, delivery: Delivery) -> tuple[_Course, InvalidJob | None]:
        arrived_at, started = self._now(), self._monotonic()
        try:
            job, mistake = decode(delivery.body, delivery.properties), None
        except InvalidJob as error:
            job, mistake = error.job, error
        inquiry = Inquiry(job.account_number, job.deadline, delivery.is_current, last_error=job.last_error)
        return _Course(delivery, arrived_at, started, job, inquiry), mistake

    async def _succeed_or_fail(self, course: _Course) -> Disposition:
        try:
            return await self._succeed(course)
        except JobError as error:
            return await self._remedy(course, error)
        except PutOff as reason:
            return await self._defer(course, reason)
        except StaleDelivery:
            raise
        except Exception as error:  # noqa: BLE001 - a defect of ours must not cost the job
            defect = InternalError(f"a defect of the worker: {type(error).__name__}")
            defect.__cause__ = error
            return await self._remedy(course, defect)

    async def _succeed(self, course: _Course) -> Disposition:
        answer = course.answer = await self._look_up(course.inquiry)
        normalized = result.normalize(answer.items)
        message = result.succeeded(
            course.job,
            normalized,
            exchange=self._routes.results,
            source="shared" if answer.shared else "lcm",
            attempts=course.attempts,
            looked_up_at=answer.answered_at,
            completed_at=self._now(),
            duration_ms=self._since(course.started),
            worker=self._worker,
        )
        await self._confirmed(course, message)
        self._reply_with(message, course)
        return self._end(course, Settle.ACK, "job.succeeded", outcomes=len(normalized.outcomes))

    async def _remedy(self, course: _Course, error: JobError) -> Disposition:
        match disposition_of(error):
            case Remedy.RETRY if course.job.retries < len(self._routes.retry_steps):
                return await self._retry_later(course, error)
            case Remedy.EXPIRE:
                return await self._expire(course, error)
        return await self._fail(course, error)

    async def _retry_later(self, course: _Course, error: JobError) -> Disposition:
        step = self._routes.retry_steps[course.job.retries]
        course.inquiry.last_error = f"{error.code}: {error.message}"
        try:
            course.inquiry.check(self._now() + timedelta(seconds=step.delay))
        except Expired as expired:
            return await self._expire(course, expired)
        properties = copies.retry_copy(
            course.delivery.properties, course.job, error, attempts=course.attempts
        )
        await self._copy(course, self._routes.retry, step.key, properties)
        return self._end(course, Settle.ACK, "job.retry_later", error=error, delay=step.delay)

    async def _defer(self, course: _Course, reason: PutOff) -> Disposition:
        """Put a copy that has used no retry delay into the first retry queue."""
        step = self._routes.retry_steps[0]
        try:
            course.inquiry.check(self._now() + timedelta(seconds=step.delay))
        except Expired as expired:
            return await self._expire(course, expired)
        delivery = course.delivery
        properties = copies.deferred_copy(
            delivery.properties, course.job, attempts=course.attempts, returns=delivery.returns
        )
        await self._copy(course, self._routes.retry, step.key, properties)
        return self._end(course, Settle.ACK, "job.deferred", reason=str(reason), delay=step.delay)

    async def _fail(self, course: _Course, error: JobError) -> Disposition:
        """Dead-letter first, and only then say so, so that whoever hears of it finds the job."""
        properties = copies.dead_copy(
            course.delivery.properties,
            course.job,
            error,
            attempts=course.attempts,
            failed_at=self._now(),
            worker=self._worker,
        )
        await self._copy(course, self._routes.dead, self._routes.dead_key, properties)
        return await self._expire(course, error)

    async def _expire(self, course: _Course, error: JobError) -> Disposition:
        message = result.failed(
            course.job,
            error,
            exchange=self._routes.results,
            attempts=course.attempts,
            completed_at=self._now(),
            duration_ms=self._since(course.started),
            worker=self._worker,
        )
        unroutable = False
        try:
            await self._confirmed(course, message, hold=False)
        except Unroutable:
            unroutable = True
        self._reply_with(message, course)
        return self._end(course, Settle.ACK, "job.failed", error=error, unroutable=unroutable)

    def _reply_with(self, result: Message, course: _Course) -> None:
        if reply_to := course.delivery.properties.reply_to:
            self._reply(result, reply_to, course.job.job_id)

    async def _copy(self, course: _Course, exchange: str, key: str, properties: Properties) -> None:
        await self._confirmed(course, Message(exchange, key, course.delivery.body, properties))

    async def _confirmed(self, course: _Course, message: Message, *, hold: bool = True) -> None:
        began = self._monotonic()
        try:
            await self._publish(message, course.delivery.is_current, hold=hold)
        finally:
            course.publish_seconds += self._monotonic() - began

    def _end(
        self,
        course: _Course,
        settle: Settle,
        event: str,
        *,
        outcomes: int = -1,
        error: JobError | None = None,
        delay: float | None = None,
        reason: str = "",
        unroutable: bool = False,
    ) -> Disposition:
        return Disposition(
            settle,
            event,
            job_id=course.job.job_id,
            account=course.job.account_number,
            attempts=course.attempts,
            exchanges=course.inquiry.exchanges,
            outcomes=outcomes,
            answer=course.answer,
            asked=course.inquiry.asked,
            error=error,
            delay=delay,
            reason=reason,
            unroutable=unroutable,
            queue_ms=_age(course.delivery.properties.timestamp, course.arrived_at),
            publish_ms=round(course.publish_seconds * 1000, 1),
            duration_ms=self._since(course.started),
            redelivered=course.delivery.redelivered,
        )

    def _since(self, started: float) -> float:
        return round((self._monotonic() - started) * 1000, 1)


def _poison(returns: int) -> Poison:
    return Poison(f"it came back {returns} times without an end, as if it killed the workers that had it")


def _age(published: datetime | None, arrived_at: datetime) -> float | None:
    """Return a message's age in milliseconds; the producer's clock may be ahead of ours."""
    if published is None:
        return None
    return max(0.0, round((arrived_at - published).total_seconds() * 1000, 1))
