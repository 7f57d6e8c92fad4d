"""One delivery's way to its end: what is published, in which order, and what the Disposition says."""

from __future__ import annotations

import asyncio
import gc
import json
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from worker.broker.topology import topology_of
from worker.common.clock import Clock
from worker.contract.disposition import Disposition, Ending, Sent, Settle
from worker.contract.errors import (
    ConnectionLost,
    Deferred,
    Expired,
    GaveWay,
    JobError,
    LcmError,
    LcmRejected,
    LookupFailed,
    MalformedReply,
    MessageTooLarge,
    ReplyTimeout,
    ReplyTooLarge,
    StaleDelivery,
)
from worker.contract.job import Job
from worker.contract.lookup import ExchangeTiming, LookupRequest, LookupResult
from worker.contract.message import MILLISECONDS_HEADER, Delivery, Message, Properties
from worker.contract.outcomes import OutcomeList
from worker.pipeline import Pipeline
from worker.settings import BrokerSettings

NOW = datetime(2026, 1, 31, 12, 0, 0, 123_000, tzinfo=UTC)
ITEMS = [("7", "Answering  Machine "), ("0", "Success")]
TIMING = ExchangeTiming(session=3, exchange=9, seconds=10)
TRANSIENT = [ReplyTimeout("late"), ConnectionLost("gone"), LcmError("down"), MalformedReply("odd")]
PERMANENT = [LcmRejected("no", remote_message="unknown account"), ReplyTooLarge("big")]


TOPOLOGY = topology_of(BrokerSettings(prefix="x", retry_delays=(5.0, 30.0)))


@dataclass
class World:
    """A look-up and an outbox that do as told, and remember.

    `returned` and `refusing` name exchanges: nobody is bound to the former, the latter take nothing. `parking` is
    whether results that are not taken can be parked.
    """

    outcome: Callable[[LookupRequest], LookupResult]
    returned: set[str] = field(default_factory=set)
    refusing: set[str] = field(default_factory=set)
    parking: bool = True
    parked: list[Message] = field(default_factory=list)
    published: list[Message] = field(default_factory=list)
    publish: Callable[[Message], None] = lambda _: None
    now: datetime = NOW
    replied: list[tuple[Message, str, str]] = field(default_factory=list)

    def reply(self, result: Message, reply_to: str, job: Job) -> None:
        assert result in self.published + self.parked or result.exchange in self.returned
        self.replied.append((result, reply_to, job.job_id))

    async def look_up(self, request: LookupRequest) -> LookupResult:
        return self.outcome(request)

    async def result(
        self, message: Message, is_wanted: Callable[[], bool], *, has_dead_letter: bool = False
    ) -> Sent:
        if has_dead_letter and message.exchange in self.returned:
            return Sent.RETURNED
        if message.exchange not in self.returned | self.refusing:
            await self.retry(message, is_wanted)
            return Sent.DELIVERED
        if not self.parking:
            raise Deferred("the undelivered queue is full")
        self.parked.append(message)
        return Sent.PARKED

    async def dead(self, message: Message, is_wanted: Callable[[], bool]) -> None:
        if message.exchange in self.refusing:
            raise Deferred("the dead-letter queue is full")
        await self.retry(message, is_wanted)

    async def retry(self, message: Message, is_wanted: Callable[[], bool]) -> None:
        if not is_wanted():
            raise StaleDelivery("gone")
        self.publish(message)
        self.published.append(message)

    def handle(
        self, delivery: Delivery, sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
    ) -> Awaitable[Disposition]:
        return self._pipeline(sleep)(delivery)

    def put_off(self, delivery: Delivery, reason: Deferred) -> Awaitable[Disposition]:
        return self._pipeline(asyncio.sleep).defer(delivery, reason)

    def _pipeline(self, sleep: Callable[[float], Awaitable[object]]) -> Pipeline:
        return Pipeline(
            self.look_up,
            self,
            TOPOLOGY,
            worker="w-1",
            delivery_limit=20,
            reply=self.reply,
            clock=Clock(now=lambda: self.now, monotonic=lambda: 1.0, sleep=sleep),
        )

    @property
    def targets(self) -> list[tuple[str, str]]:
        return [(message.exchange, message.routing_key) for message in self.published]


def answering(*, exchanges: int = 1, shared: bool = False) -> Callable[[LookupRequest], LookupResult]:
    def outcome(request: LookupRequest) -> LookupResult:
        request.exchanges += exchanges
        return LookupResult(OutcomeList(ITEMS), NOW, NOW, ExchangeTiming(3, 9, 0.008), shared=shared)

    return outcome


def failing(error: Exception, *, exchanges: int = 3) -> Callable[[LookupRequest], LookupResult]:
    def outcome(request: LookupRequest) -> LookupResult:
        request.exchanges += exchanges
        request.last_exchange = TIMING
        raise error

    return outcome


def delivery(headers: dict[str, Any] | None = None, **fields: Any) -> Delivery:
    body = json.dumps({"account_number": "18|1", "job_id": "job-1", **fields}).encode()
    return Delivery(body, Properties(headers=headers or {}, message_id="m-1", correlation_id="c-1"))


def body_of(message: Message) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(message.body)
    return found


async def test_a_success_is_one_confirmed_result_and_an_ack() -> None:
    """A looked-up job publishes its result and nothing else."""
    world = World(answering())
    end = await world.handle(delivery())
    assert (end.ending, end.attempts, end.outcomes) == (Ending.SUCCEEDED, 1, 2)
    assert world.targets == [("x.results", "result.succeeded")]
    result = body_of(world.published[0])
    assert result["outcomes"] == [
        {"id": "0", "code": "success", "description": "Success"},
        {"id": "7", "code": "answering_machine", "description": "Answering Machine"},
    ]
    assert (result["source"], result["attempts"], result["worker"]) == ("lcm", 1, "w-1")
    assert world.published[0].properties.correlation_id == "c-1"


async def test_a_shared_answer_says_so_and_counts_no_exchange() -> None:
    """A job answered by another one's exchange has the source `shared` and made no attempt of its own."""
    world = World(answering(exchanges=0, shared=True))
    end = await world.handle(delivery())
    assert (body_of(world.published[0])["source"], end.attempts) == ("shared", 0)


async def test_attempts_count_over_all_deliveries() -> None:
    """The exchanges of earlier deliveries, carried in a header, are added to this one's."""
    world = World(answering(exchanges=2))
    end = await world.handle(delivery({"outcome-attempts": 3, "outcome-retries": 1}))
    assert end.attempts == body_of(world.published[0])["attempts"] == 5


@pytest.mark.parametrize("error", TRANSIENT, ids=lambda error: error.code)
async def test_a_transient_error_goes_to_the_next_retry_queue(error: JobError) -> None:
    """Each transient error makes one copy, in the queue of the job's next delay, with its counters raised."""
    for retries, key, delay in ((0, "5s", 5.0), (1, "30s", 30.0)):
        world = World(failing(error))
        end = await world.handle(delivery({"outcome-retries": retries, "outcome-attempts": 3 * retries}))
        assert (end.ending, end.delay, end.error) == (Ending.RETRY_LATER, delay, error)
        assert world.targets == [("x.retry", key)]
        copy = world.published[0]
        assert copy.body == delivery().body
        assert copy.properties.message_id == "m-1"
        assert copy.properties.headers == {
            "outcome-job-id": "job-1",
            "outcome-error-code": error.code,
            "outcome-error-reason": error.message,
            "outcome-attempts": 3 * retries + 3,
            "outcome-retries": retries + 1,
        }


@pytest.mark.parametrize(
    ("error", "retries"),
    [*((error, 2) for error in TRANSIENT), *((error, 0) for error in PERMANENT)],
    ids=lambda value: getattr(value, "code", ""),
)
async def test_a_job_that_fails_is_dead_lettered_before_it_is_said(error: JobError, retries: int) -> None:
    """A permanent error, or a transient one after the last delay, ends as a dead-letter copy, then a result."""
    world = World(failing(error))
    end = await world.handle(delivery({"outcome-retries": retries, "outcome-attempts": 6}))
    assert (end.ending, end.error, end.sent) == (Ending.FAILED, error, Sent.DELIVERED)
    assert end.last_exchange == TIMING
    assert world.targets == [("x.dead", "dead"), ("x.results", "result.failed")]
    copy, result = world.published
    assert copy.body == delivery().body
    assert copy.properties.headers == {
        "outcome-job-id": "job-1",
        "outcome-error-code": error.code,
        "outcome-error-reason": error.message,
        "outcome-attempts": 9,
        "outcome-failed-at": "2026-01-31T12:00:00.123Z",
        "outcome-worker": "w-1",
    }
    said = {"code": error.code, "message": error.message, "transient": error.transient}
    assert (body_of(result)["status"], body_of(result)["error"]) == ("failed", said)
    assert body_of(result)["attempts"] == 9
    assert "outcomes" not in body_of(result)


async def test_a_bad_body_is_invalid_and_never_looked_up() -> None:
    """A body that is no job ends as `invalid_job`, byte for byte in the dead-letter queue, its account null."""
    asked: list[LookupRequest] = []

    def outcome(request: LookupRequest) -> LookupResult:
        asked.append(request)
        return answering()(request)

    world = World(outcome)
    end = await world.handle(Delivery(b'{"account_number": 7', Properties()))
    assert asked == []
    assert (end.ending, end.attempts, end.account) == (Ending.FAILED, 0, "")
    copy, result = world.published
    assert copy.body == b'{"account_number": 7'
    assert copy.properties.headers["outcome-error-code"] == body_of(result)["error"]["code"] == "invalid_job"
    assert copy.properties.headers["outcome-job-id"] == body_of(result)["job_id"]
    assert copy.properties.message_id
    assert body_of(result)["account_number"] is None


async def test_a_job_that_came_back_too_often_is_never_looked_up() -> None:
    """At the delivery limit a job is dead-lettered as `poison`: it seems to kill the workers that have it."""
    world = World(failing(AssertionError("it was looked up")))
    end = await world.handle(replace(delivery(), delivery_count=20))
    copy, result = world.published
    assert end.ending is Ending.FAILED
    assert copy.properties.headers["outcome-error-code"] == body_of(result)["error"]["code"] == "poison"
    assert (
        await World(answering()).handle(replace(delivery(), delivery_count=19))
    ).ending is Ending.SUCCEEDED


@pytest.mark.parametrize(("exchanges", "came_back"), [(0, 4), (1, None)])
async def test_who_was_asked_for_and_deferred_kills_no_worker(exchanges: int, came_back: int | None) -> None:
    """Deferred after exchanges it has had its chance to: how often it came back is counted anew."""
    world = World(failing(Deferred("LCM is out"), exchanges=exchanges))
    end = await world.handle(replace(delivery(), delivery_count=4))
    [copy] = world.published
    assert end.ending is Ending.DEFERRED
    assert copy.properties.headers.get("outcome-returns") == came_back


async def test_an_expired_job_has_a_result_alone() -> None:
    """Past its deadline a job is not dead-lettered: whoever asked hears of it, and that is all."""
    world = World(failing(Expired("past the deadline"), exchanges=0))
    end = await world.handle(delivery())
    assert (end.ending) == (Ending.FAILED)
    assert world.targets == [("x.results", "result.failed")]
    assert body_of(world.published[0])["error"]["code"] == "expired"


@pytest.mark.parametrize(("seconds_left", "expected"), [(4.9, "expired"), (5.0, "expired"), (5.1, "x.retry")])
async def test_no_retry_delay_passes_the_deadline(seconds_left: float, expected: str) -> None:
    """A delay that would pass the deadline is not begun: the job expires now, and the last error is told."""
    deadline = (NOW + timedelta(seconds=seconds_left)).isoformat()
    world = World(failing(ReplyTimeout("LCM did not reply")))
    await world.handle(delivery(deadline=deadline))
    [message] = world.published
    if expected == "expired":
        error = body_of(message)["error"]
        assert (message.exchange, error["code"]) == ("x.results", "expired")
        assert "timeout: LCM did not reply" in error["message"]
    else:
        assert message.exchange == expected


async def test_a_permanent_error_fails_whatever_the_deadline() -> None:
    """The deadline is looked at before a retry delay, not before a failure."""
    world = World(failing(LcmRejected("no")))
    await world.handle(delivery(deadline=NOW.isoformat()))
    assert world.targets == [("x.dead", "dead"), ("x.results", "result.failed")]


async def test_a_returned_failed_result_is_not_parked() -> None:
    """A consumer bound to `result.succeeded` alone must not stop the work: the dead-letter copy suffices."""
    world = World(failing(LcmRejected("no")), returned={"x.results"})
    end = await world.handle(delivery())
    assert (end.ending, end.sent) == (Ending.FAILED, Sent.RETURNED)
    assert world.targets == [("x.dead", "dead")]


async def test_a_result_that_no_queue_takes_is_parked_and_ends_its_job() -> None:
    """Succeeded, expired, or refused though dead-lettered: the delivery ends, and the caller gets its reply."""
    for outcome, ending in (
        (answering(), Ending.SUCCEEDED),
        (failing(Expired("past the deadline")), Ending.FAILED),
        (failing(LcmRejected("no")), Ending.FAILED),
    ):
        world = World(outcome, refusing={"x.results"})
        end = await world.handle(called())
        assert (end.ending, end.sent) == (ending, Sent.PARKED)
        assert [(reply, to) for reply, to, _ in world.replied] == [(world.parked[0], "dialer.1")]


async def test_a_job_whose_message_nothing_takes_is_deferred() -> None:
    """Neither dead letter nor parked result is taken: the job goes into the first retry queue, uncharged."""
    for outcome, refusing in ((failing(LcmRejected("no")), "x.dead"), (answering(), "x.results")):
        world = World(outcome, refusing={refusing}, parking=False)
        end = await world.handle(delivery({"outcome-retries": 1}))
        assert (end.ending, world.targets) == (Ending.DEFERRED, [("x.retry", "5s")])
        assert "full" in end.reason
        assert world.published[0].properties.headers["outcome-retries"] == 1


@pytest.mark.parametrize(
    ("reason", "failed", "error"),
    [
        (GaveWay("LCM answers slowly"), ReplyTimeout("late"), "timeout"),
        (GaveWay("LCM answers slowly"), None, None),
        (Deferred("LCM is out"), ReplyTimeout("late"), None),
    ],
)
async def test_what_failed_before_it_gave_way_tells_by_what(
    reason: Deferred, failed: LookupFailed | None, error: str | None
) -> None:
    """The guard counts it as an end; not what waits for another's exchange, nor what an outage put off."""

    def outcome(request: LookupRequest) -> LookupResult:
        if failed is not None:
            request.note_failure(failed)
        raise reason

    end = await World(outcome).handle(delivery())
    assert (end.ending, end.error and end.error.code, end.reason) == (Ending.DEFERRED, error, str(reason))


@pytest.mark.parametrize(
    ("if_there_is_time", "seconds", "ending"),
    [
        (True, None, Ending.DEFERRED),
        (True, 6, Ending.DEFERRED),
        (True, 4, Ending.SUCCEEDED),
        (False, 4, Ending.FAILED),
    ],
)
async def test_a_job_that_has_no_time_is_looked_up_by_who_takes_no_more(
    if_there_is_time: bool, seconds: float | None, ending: Ending
) -> None:
    """Pitfall: a worker that stops put off what just arrived, and so failed what had 4 s left, as expired."""
    world = World(answering())
    deadline: dict[str, Any] = (
        {} if seconds is None else {"deadline": (NOW + timedelta(seconds=seconds)).isoformat()}
    )
    reason = Deferred("the worker takes no more jobs for now", if_there_is_time=if_there_is_time)
    assert (await world.put_off(delivery(**deadline), reason)).ending is ending


async def test_an_expired_job_whose_result_nothing_takes_is_deferred_all_the_same() -> None:
    """It expires again after the delay, until somebody can be told."""
    world = World(failing(Expired("past the deadline")), refusing={"x.results"}, parking=False)
    end = await world.handle(delivery(deadline=NOW.isoformat()))
    assert (end.ending, world.targets) == (Ending.DEFERRED, [("x.retry", "5s")])


async def test_a_job_that_fits_no_copy_keeps_its_place_until_its_result_is_taken() -> None:
    """Nothing can take its place, so it is rejected only once its failed result is confirmed or parked."""
    world = World(failing(ReplyTimeout("late")), refusing={"x.results"}, parking=False)
    world.publish = too_large_for("x.retry")
    naps: list[float] = []

    async def sleep(seconds: float) -> None:
        naps.append(seconds)
        world.parking = len(naps) > 1

    end = await world.handle(delivery(), sleep=sleep)
    assert (end.ending, end.sent, naps) == (Ending.REJECTED, Sent.PARKED, [5.0, 5.0])


@pytest.mark.parametrize("retries", [0, 2])
async def test_a_defect_of_the_look_up_is_internal_and_retried_later(retries: int) -> None:
    """An error that nobody foresaw costs no job: it is `internal`, with the original for the log."""
    defect = ZeroDivisionError("18|1")
    world = World(failing(defect, exchanges=1))
    end = await world.handle(delivery({"outcome-retries": retries}))
    assert end.error is not None
    assert (end.error.code, end.error.__cause__) == ("internal", defect)
    assert "18|1" not in end.error.message
    targets = [("x.retry", "5s")] if retries == 0 else [("x.dead", "dead"), ("x.results", "result.failed")]
    assert world.targets == targets


async def test_a_result_that_cannot_be_published_is_internal() -> None:
    """A defect in building or publishing a result is treated as one in looking up."""

    def publish(message: Message) -> None:
        if message.exchange == "x.results":
            raise ValueError("a routing key of the wrong kind")

    world = World(answering(), publish=publish)
    end = await world.handle(delivery())
    assert (end.ending, end.error and end.error.code) == (Ending.RETRY_LATER, "internal")


async def test_where_even_failing_fails_the_error_comes_out() -> None:
    """What can't be put anywhere is for the consumer to hand to the broker: nothing is acknowledged."""

    def publish(_message: Message) -> None:
        raise TypeError("a header of the wrong kind")

    with pytest.raises(TypeError):
        await World(failing(LcmRejected("no")), publish=publish).handle(delivery())


@pytest.mark.parametrize(
    "outcome",
    [answering(), failing(ReplyTimeout("late")), failing(LcmRejected("no")), failing(StaleDelivery("gone"))],
)
async def test_a_stale_delivery_is_neither_published_nor_settled(
    outcome: Callable[[LookupRequest], LookupResult],
) -> None:
    """Once its channel is gone the broker hands a job out again, so nothing is done for it any more."""
    world = World(outcome)
    stale = delivery()
    stale.is_current = lambda: False
    end = await world.handle(stale)
    assert (end.ending) == (Ending.STALE)
    assert world.published == []


async def test_a_delivery_that_goes_stale_on_the_way_publishes_no_more() -> None:
    """When the channel goes between the dead-letter copy and the result, the rest is left to the next delivery."""
    current = [True]
    world = World(failing(LcmRejected("no")), publish=lambda _: current.clear())
    job = delivery()
    job.is_current = lambda: bool(current)
    end = await world.handle(job)
    assert (end.ending.settle, world.targets) == (Settle.NOT_AT_ALL, [("x.dead", "dead")])


async def test_what_is_asked_is_the_job_s() -> None:
    """The look-up is given the account, the deadline, what earlier deliveries ended with, and who still wants it."""
    asked: list[LookupRequest] = []

    def outcome(request: LookupRequest) -> LookupResult:
        asked.append(request)
        return answering()(request)

    headers = {"outcome-error-code": "timeout", "outcome-error-reason": "late"}
    job = delivery(headers, deadline="2026-02-01T00:00:00Z")
    await World(outcome).handle(job)
    [request] = asked
    assert (request.account, request.deadline) == ("18|1", datetime(2026, 2, 1, tzinfo=UTC))
    assert (request.last_error, request.is_wanted) == ("timeout: late", job.is_current)


async def test_a_route_is_part_of_the_routing_key() -> None:
    """A job's route is appended to the key of its result, whether it succeeded or failed."""
    for outcome, key in (
        (answering(), "result.succeeded.emea"),
        (failing(LcmRejected("no")), "result.failed.emea"),
    ):
        world = World(outcome)
        await world.handle(delivery(route="emea"))
        assert world.published[-1].routing_key == key


async def test_a_repeat_of_a_job_repeats_its_message_ids() -> None:
    """Consumers drop repeats by message id: the same job ends with the same one, a failure with another."""
    ids = []
    for outcome in (answering(), answering(), failing(LcmRejected("no"))):
        world = World(outcome)
        await world.handle(delivery())
        ids.append(world.published[-1].properties.message_id)
    assert ids[0] == ids[1] != ids[2]


async def test_the_age_on_arrival_is_never_below_zero() -> None:
    """A producer whose clock is ahead of ours makes no negative age, and no timestamp makes none at all."""
    for ago, expected in ((timedelta(seconds=2), 2000.0), (timedelta(seconds=-2), 0.0), (None, None)):
        job = delivery()
        job.properties = Properties(timestamp=None if ago is None else NOW - ago)
        assert (await World(answering()).handle(job)).queue_ms == expected


@pytest.mark.parametrize(
    ("said", "expected"),
    [(-1234, 1234.0), (5, 0.0), ("text", 2000.0), (True, 2000.0), (1 << 62, 2000.0), (-1 << 62, 2000.0)],
)
async def test_a_header_tells_the_age_in_milliseconds(said: object, expected: float) -> None:
    """It goes before the timestamp, which counts whole seconds; one that is no time counts as none."""
    if type(said) is int and abs(said) < 10_000:
        said += int(NOW.timestamp() * 1000)
    job = delivery()
    job.properties = Properties(timestamp=NOW - timedelta(seconds=2), headers={MILLISECONDS_HEADER: said})
    assert (await World(answering()).handle(job)).queue_ms == expected


def called(account: str = "18|1") -> Delivery:
    body = json.dumps({"account_number": account, "job_id": "job-1"}).encode()
    return Delivery(body, Properties(message_id="m-1", reply_to="dialer.1"))


@pytest.mark.parametrize("outcome", [answering(), failing(LcmRejected("no"))])
async def test_a_caller_gets_the_result_after_its_confirm(
    outcome: Callable[[LookupRequest], LookupResult],
) -> None:
    """Success or failure, the very message of the results exchange is handed over once it is confirmed."""
    world = World(outcome)
    await world.handle(called())
    assert world.replied == [(world.published[-1], "dialer.1", "job-1")]


async def test_a_caller_gets_a_failure_that_nobody_else_listens_to() -> None:
    """A failed result that no queue takes still goes to the caller who waits for it."""
    world = World(failing(LcmRejected("no")), returned={"x.results"})
    end = await world.handle(called())
    assert end.sent is Sent.RETURNED
    assert [(reply.routing_key, to) for reply, to, _ in world.replied] == [("result.failed", "dialer.1")]


async def test_a_job_that_is_not_finished_yet_has_no_reply() -> None:
    """Neither a retry nor a job without reply_to hands anything over."""
    retried = World(failing(ReplyTimeout("late")))
    assert (await retried.handle(called())).ending is Ending.RETRY_LATER
    plain = World(answering())
    assert (await plain.handle(delivery())).ending is Ending.SUCCEEDED
    assert retried.replied == plain.replied == []


def too_large_for(*exchanges: str) -> Callable[[Message], None]:
    """Return a publish that refuses, for its size, the first message to each of these AMQP exchanges."""
    refusing = list(exchanges)

    def publish(message: Message) -> None:
        if message.exchange in refusing:
            refusing.remove(message.exchange)
            raise MessageTooLarge("it has 9 bytes, and the broker takes 8 (max_message_size)")

    return publish


async def test_a_result_that_the_broker_never_takes_fails_its_job() -> None:
    """The job is dead-lettered with the reason, and its failed result, which is smaller, says why."""
    world = World(answering(), publish=too_large_for("x.results"))
    end = await world.handle(delivery())
    assert (end.ending, end.error and end.error.code) == (Ending.FAILED, "result_too_large")
    assert world.targets == [("x.dead", "dead"), ("x.results", "result.failed")]
    assert "max_message_size" in body_of(world.published[1])["error"]["message"]


async def test_a_job_of_which_no_letter_fits_is_rejected() -> None:
    """The broker dead-letters what is rejected, whatever its size; the failed result comes first."""
    world = World(failing(PERMANENT[0]), publish=too_large_for("x.dead"))
    end = await world.handle(delivery())
    assert (end.ending, end.ending.settle) == (Ending.REJECTED, Settle.DEAD_LETTER)
    assert world.targets == [("x.results", "result.failed")]


async def test_a_job_of_which_no_copy_fits_is_rejected() -> None:
    """Neither retried nor deferred, since no copy can be published, it fails rather than being tried for ever."""
    for error in (TRANSIENT[0], Deferred("LCM is out")):
        world = World(failing(error), publish=too_large_for("x.retry"))
        end = await world.handle(delivery())
        assert (end.ending, end.error and end.error.code) == (Ending.REJECTED, "invalid_job")
        assert world.targets == [("x.results", "result.failed")]


async def test_a_failed_result_that_the_broker_never_takes_is_told() -> None:
    """Its dead letter is there, so the delivery ends, and the log tells that nobody got the result."""
    world = World(failing(PERMANENT[0]), publish=too_large_for("x.results"))
    end = await world.handle(delivery())
    assert (end.ending, end.sent) == (Ending.FAILED, Sent.RETURNED)
    assert world.targets == [("x.dead", "dead")]


def _json(size: int = 0, **fields: Any) -> bytes:
    return json.dumps({"account_number": "18|1", **fields}).encode() + b" " * size


def _raising(kind: type[Exception], text: str) -> Callable[[LookupRequest], LookupResult]:
    """Raise a new error each time: one that is kept would keep the frames of its traceback."""

    def outcome(_: LookupRequest) -> LookupResult:
        raise kind(text)

    return outcome


@pytest.mark.parametrize(
    ("body", "outcome", "ending"),
    [
        (_json(), answering(), Ending.SUCCEEDED),
        (_json(), _raising(ReplyTimeout, "late"), Ending.RETRY_LATER),
        (_json(), _raising(LcmRejected, "no"), Ending.FAILED),
        (_json(), _raising(Deferred, "LCM is away"), Ending.DEFERRED),
        (_json(), _raising(ValueError, "a defect"), Ending.RETRY_LATER),
        (_json(deadline="2026-01-31T12:00:01Z"), _raising(ReplyTimeout, "late"), Ending.FAILED),
        (_json(deadline="2026-01-31T12:00:01Z"), _raising(Deferred, "LCM is away"), Ending.FAILED),
        (_json(route="a b"), answering(), Ending.FAILED),
        (b"no JSON at all", answering(), Ending.FAILED),
        (_json(70_000), answering(), Ending.FAILED),
        (b"[" * 60_000, answering(), Ending.FAILED),
    ],
)
async def test_a_delivery_that_has_ended_leaves_no_garbage(
    body: bytes, outcome: Callable[[LookupRequest], LookupResult], ending: Ending
) -> None:
    """Its body is freed at once: one that waited for the garbage collector would fill the memory with large ones."""
    world = World(outcome)
    gc.disable()
    try:
        before = sys.getrefcount(body)
        end = await world.handle(Delivery(body, Properties()))
        assert end.ending is ending
        del end
        world.published.clear()
        assert sys.getrefcount(body) == before
    finally:
        gc.enable()


async def test_every_end_tells_the_trace_of_the_job() -> None:
    """A job that succeeds, fails or can't be read names its trace; a forged `traceparent` goes on, and names none."""
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    trace = {"traceparent": f"00-{trace_id}-b7ad6b7169203331-01", "tracestate": "a=b"}
    for outcome, job in (
        (answering(), delivery(trace)),
        (failing(PERMANENT[0]), delivery(trace)),
        (failing(TRANSIENT[0]), delivery(trace)),
        (answering(), Delivery(b"no job", Properties(headers=trace))),
    ):
        world = World(outcome)
        assert (await world.handle(job)).trace_id == trace_id
        assert all(trace.items() <= message.properties.headers.items() for message in world.published)
    forged = {"traceparent": f"00-{trace_id}-\n-01"}
    world = World(answering())
    assert (await world.handle(delivery(forged))).trace_id == ""
    assert world.published[0].properties.headers == forged
