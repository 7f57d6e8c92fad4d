"""Everything that can go wrong, as one tree.

::

    WorkerError
    ├── SettingsError               a setting is wrong                      exit status 2
    ├── TopologyError               the broker's entities are not as asked  exit status 2
    ├── SessionNotOpened            LCM can't be reached: an outage, never a job's fault
    ├── BrokerError
    │   ├── BrokerAway              no connection to the broker
    │   ├── PublishLost             the connection went before the confirm
    │   ├── Unroutable              the broker returned the message: no queue is bound
    │   └── PublishRefused          the broker said no (basic.nack)
    │       └── PublishForbidden    this user may not publish there
    ├── StaleDelivery               the delivery's channel is gone; the broker hands it out again
    ├── PutOff                      the job can't be finished now, through no fault of its own: defer it
    └── JobError                    ends as the `error` of a failed result
        ├── InvalidJob              invalid_job        permanent
        ├── Expired                 expired            permanent, not dead-lettered
        ├── Poison                  poison             permanent
        ├── InternalError           internal           transient, retried later only
        └── LookupFailed
            ├── LcmRejected         lcm_rejected       permanent
            ├── LcmError            lcm_error          transient
            ├── ReplyTimeout        timeout            transient
            ├── ConnectionLost      connection_lost    transient
            ├── MalformedReply      malformed_reply    transient
            └── ReplyTooLarge       reply_too_large    permanent

Errors of libraries are translated into these once, at the edge, `from` the original.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from worker.job import Job


class WorkerError(Exception):
    """The base of every error that this package raises on purpose."""


class SettingsError(WorkerError):
    """A setting is wrong; the text lists every mistake, each with its source."""


class TopologyError(WorkerError):
    """An exchange or queue is missing or was declared otherwise; the text names it and the remedy."""


class SessionNotOpened(WorkerError):
    """No session with LCM could be opened.

    `refused` is true where LCM answered that it does not want us (401, 403, a certificate that does not
    verify): trying again soon can lock an account out, and does not help.
    """

    def __init__(self, reason: str, *, refused: bool = False) -> None:
        super().__init__(reason)
        self.refused = refused


class BrokerError(WorkerError):
    """The broker did not do what was asked."""


class BrokerAway(BrokerError):
    """No connection to the broker could be made, or it was lost."""


class PublishLost(BrokerError):
    """The connection went before the broker confirmed; it may or may not have kept the message."""


class Unroutable(BrokerError):
    """The broker returned the message, because no queue is bound for its routing key."""


class PublishRefused(BrokerError):
    """The broker answered a publish with basic.nack, as a full queue with `reject-publish` does."""


class PublishForbidden(PublishRefused):
    """The user of `broker.url` lacks the right to publish to this exchange."""


class StaleDelivery(WorkerError):
    """The channel that brought this delivery is gone, so it can't be settled: the broker redelivers it."""


class PutOff(WorkerError):
    """The job can't be finished now, through no fault of its own; the text says why. It is deferred."""


class JobError(WorkerError):
    """What ends a job with the status `failed`.

    `str()` of it is in this worker's own words; `said` holds LCM's own words, where it said any, so that the
    log can leave them out when account numbers must not appear there.
    """

    code: ClassVar[str]
    transient: ClassVar[bool] = False

    def __init__(self, message: str, *, said: str = "") -> None:
        super().__init__(message)
        self.said = said

    @property
    def message(self) -> str:
        """The text of a failed result's `error.message`."""
        return f"{self}: {self.said}" if self.said else str(self)


class InvalidJob(JobError):
    """The job's body, a field of it, or its size is wrong.

    `job` holds what could be read, enough for the failed result and the dead-letter copy; its
    `account_number` is "" where that field couldn't be read.
    """

    code = "invalid_job"

    def __init__(self, message: str, *, job: Job) -> None:
        super().__init__(message)
        self.job = job


class Expired(JobError):
    """The job is past its own deadline."""

    code = "expired"


class Poison(JobError):
    """The job has come back as often as the broker allows: it seems to kill workers."""

    code = "poison"


class InternalError(JobError):
    """A defect of this worker; the log line has the traceback."""

    code = "internal"
    transient = True


class LookupFailed(JobError):
    """An exchange with LCM did not give an outcome list."""


class LcmRejected(LookupFailed):
    """LCM answered with an error about this account."""

    code = "lcm_rejected"


class LcmError(LookupFailed):
    """LCM answered with an error about itself; the session is closed."""

    code = "lcm_error"
    transient = True


class ReplyTimeout(LookupFailed):
    """LCM did not reply in time; the session is closed."""

    code = "timeout"
    transient = True


class ConnectionLost(LookupFailed):
    """The session closed in mid-exchange."""

    code = "connection_lost"
    transient = True


class MalformedReply(LookupFailed):
    """LCM's reply can't be read as an outcome list; the session is closed."""

    code = "malformed_reply"
    transient = True


class ReplyTooLarge(LookupFailed):
    """LCM's reply is larger than `lcm.max_reply`; the session is closed."""

    code = "reply_too_large"


ERRORS: Mapping[str, type[JobError]] = {
    error.code: error
    for error in (
        InvalidJob,
        Expired,
        Poison,
        InternalError,
        LcmRejected,
        LcmError,
        ReplyTimeout,
        ConnectionLost,
        MalformedReply,
        ReplyTooLarge,
    )
}
"""Every `error.code` that a failed result can have, with what raises it."""


class Remedy(Enum):
    """What the pipeline does with a job that failed."""

    RETRY = "retry later, then fail"
    FAIL = "dead-letter, then a failed result"
    EXPIRE = "a failed result alone"


def disposition_of(error: JobError) -> Remedy:
    """Decide, for the whole worker, what becomes of a job that ended with this error."""
    if isinstance(error, Expired):
        return Remedy.EXPIRE
    return Remedy.RETRY if error.transient else Remedy.FAIL
