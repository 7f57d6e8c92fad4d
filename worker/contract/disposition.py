"""What a delivery came to: how to settle it, and what its one log line tells."""

from __future__ import annotations

from enum import Enum

import msgspec

from worker.contract.errors import Expired, JobError
from worker.contract.job import NOBODY, Producer
from worker.contract.lookup import ExchangeTiming, LookupResult


class Settle(Enum):
    """What the consumer tells the broker about a delivery."""

    ACK = "something else has taken its place"
    DEAD_LETTER = "the broker is to dead-letter it, because the worker could not"
    NOT_AT_ALL = "its channel is gone"


class Ending(Enum):
    """The ways in which a delivery can end: the name that the log and the metrics use, and how it is settled.

    Attributes:
        label: the name.
        settle: what the broker is told.
        is_failure: whether the job has failed for good, with a copy in the dead-letter queue or rejected into it.
        event: the event of the delivery's log line.
    """

    SUCCEEDED = "succeeded", Settle.ACK
    FAILED = "failed", Settle.ACK
    REJECTED = "failed", Settle.DEAD_LETTER
    RETRY_LATER = "retry_later", Settle.ACK
    DEFERRED = "deferred", Settle.ACK
    STALE = "stale", Settle.NOT_AT_ALL
    CRASHED = "crashed", Settle.DEAD_LETTER

    def __init__(self, label: str, settle: Settle) -> None:
        self.label = label
        self.settle = settle
        self.is_failure = label == "failed"
        self.event = f"job.{label}"


class Sent(Enum):
    """What became of a job's result."""

    DELIVERED = "a queue has it"
    PARKED = "no queue took it: it waits in the undelivered queue"
    RETURNED = "no queue took it, and the dead-letter queue has the job"


class Disposition(msgspec.Struct):
    """The end of one delivery.

    Times are in milliseconds. `attempts` counts exchanges over all deliveries of the job, `exchanges` those of this
    delivery alone; `last_exchange` is the last of them, answered or not, and `failed_by` the kind of the last error.
    `outcomes` is the length of the list, `-1` where there is none. `unread` is the job's. `sent` is what became of its
    result, None where it has none. `trace_id` is the trace that the job belongs to, "" where it names none.
    """

    ending: Ending
    job_id: str = ""
    account: str = ""
    unread: str = ""
    attempts: int = 0
    exchanges: int = 0
    outcomes: int = -1
    lookup_result: LookupResult | None = None
    last_exchange: ExchangeTiming | None = None
    error: JobError | None = None
    failed_by: type[JobError] | None = None
    delay: float | None = None
    reason: str = ""
    queue_ms: float | None = None
    publish_ms: float = 0.0
    duration_ms: float = 0.0
    redelivered: bool = False
    sent: Sent | None = None
    producer: Producer = NOBODY

    @property
    def suspicious(self) -> bool:
        """Whether it failed as the guard counts, be it that its deadline came before the next try."""
        kind = self.failed_by if isinstance(self.error, Expired) else self.error and type(self.error)
        return kind is not None and kind.suspicious

    trace_id: str = ""
