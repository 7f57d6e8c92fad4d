"""What a delivery came to: how to settle it, and what its one log line says."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from worker.errors import JobError
from worker.inquiry import Answer, Asked


class Settle(Enum):
    """What the consumer says to the broker of a delivery."""

    ACK = "something else stands in its place"
    DEAD_LETTER = "the broker shall dead-letter it, because we could not"
    NOT_AT_ALL = "its channel is gone"


@dataclass(slots=True)
class Disposition:
    """The end of one delivery.

    `event` is the name of its log line. Times are in milliseconds; `attempts` counts over all deliveries of the
    job, `exchanges` for this delivery alone; `asked` is its last exchange, be there an answer or not; `outcomes` is
    the length of the list, `-1` where there is none.
    """

    settle: Settle
    event: str
    job_id: str = ""
    account: str = ""
    attempts: int = 0
    exchanges: int = 0
    outcomes: int = -1
    answer: Answer | None = None
    asked: Asked | None = None
    error: JobError | None = None
    delay: float | None = None
    reason: str = ""
    queue_ms: float | None = None
    publish_ms: float = 0.0
    duration_ms: float = 0.0
    redelivered: bool = False
    unroutable: bool = False
