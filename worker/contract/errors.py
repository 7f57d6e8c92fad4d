"""Everything that can go wrong, as one tree.

::

    WorkerError
    ├── SettingsError               a setting is wrong                      exit status 2
    ├── TopologyError               the broker's entities are not as asked  exit status 2
    │   └── EntityMissing           one of them does not exist
    ├── FolderUnfit                 a folder can't be written in safely     exit status 2
    ├── SessionNotOpened            LCM can't be reached: an outage, never a job's fault
    ├── BrokerError
    │   ├── BrokerAway              no connection to the broker
    │   ├── PublishLost             the connection went before the confirm
    │   ├── MessageTooLarge         the broker takes no message of this size, or with headers of this size
    │   └── NotTaken                no queue took the message
    │       ├── Unroutable          the broker returned it: no queue is bound for its routing key
    │       │   └── ExchangeMissing   there is no such exchange
    │       ├── Unconfirmed         the broker neither confirms nor refuses it, though it confirms others
    │       └── PublishRefused      the broker said no (basic.nack)
    │           └── PublishForbidden  this user may not publish there
    ├── StaleDelivery               the delivery's channel is gone; the broker hands it out again
    ├── Deferred                    the job can't be finished now, through no fault of its own: defer it
    │   └── GaveWay                 it has waited for LCM so long that other jobs need its place
    └── JobError                    ends as the `error` of a failed result
        ├── InvalidJob              invalid_job        permanent
        ├── Expired                 expired            permanent, not dead-lettered
        ├── Poison                  poison             permanent
        ├── ResultTooLarge          result_too_large   permanent
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

from collections.abc import Iterator, Mapping
from enum import Enum
from typing import ClassVar

from worker.common.text import printable
from worker.contract.job import Job


class WorkerError(Exception):
    """The base of every error that this package raises on purpose.

    `str()` of it is in this worker's own words. What others said, LCM above all, is kept beside them, so that a log
    that may not hold account numbers can leave it out.
    """

    @property
    def message(self) -> str:
        """The whole text, with what others said."""
        return str(self)

    @property
    def lines(self) -> list[str]:
        """That text as printable lines: what others said can't break one."""
        return [printable(self.message)]


class SettingsError(WorkerError):
    """Settings are wrong: one mistake or several, each with its source."""

    def __init__(self, *mistakes: str) -> None:
        self._lines = [printable(each) for each in mistakes]
        super().__init__("\n".join(self._lines))

    @property
    def lines(self) -> list[str]:
        """A line for each mistake."""
        return self._lines


class TopologyError(WorkerError):
    """An exchange or queue is missing or was declared otherwise; the text names it and the remedy."""


class EntityMissing(TopologyError):
    """An exchange or queue does not exist."""


class FolderUnfit(WorkerError):
    """What a command writes can't be kept in this folder, or not safely; the text names it and the remedy."""


class SessionNotOpened(WorkerError):
    """No session with LCM could be opened.

    `remedy` tells what to do, where that is known; the text ends with it. `said` holds LCM's own words, where it said
    any. `refused` is true where LCM answered that it does not want us (401, 403, a certificate that does not verify):
    trying again soon can lock an account out, and does not help. `pause` is for how many seconds it asked to be left
    alone. `nobody_listens` where the port is closed. `full` where it says that it has no room for one more session, or
    none for now.
    """

    def __init__(
        self,
        reason: str,
        *,
        remedy: str = "",
        said: str = "",
        refused: bool = False,
        pause: float = 0.0,
        nobody_listens: bool = False,
        full: bool = False,
    ) -> None:
        super().__init__(f"{reason}; {remedy}" if remedy else reason)
        self._reason = reason
        self.remedy = remedy
        self.said = said
        self.refused = refused
        self.pause = pause
        self.nobody_listens = nobody_listens
        self.full = full

    @property
    def message(self) -> str:
        """Why, with LCM's own words."""
        why = f"{self._reason}: {self.said}" if self.said else self._reason
        return f"{why}; {self.remedy}" if self.remedy else why


class BrokerError(WorkerError):
    """The broker did not do what was asked."""


class BrokerAway(BrokerError):
    """No connection to the broker could be made, or it was lost; the text ends with the remedy, where one is known.

    `nobody_listens` where the port is closed at each address.
    """

    def __init__(self, reason: str, remedy: str = "", *, nobody_listens: bool = False) -> None:
        super().__init__(f"{reason}; {remedy}" if remedy else reason)
        self.remedy = remedy
        self.nobody_listens = nobody_listens


class PublishLost(BrokerError):
    """The connection went before the broker confirmed; it may or may not have kept the message."""


class MessageTooLarge(BrokerError):
    """The broker takes no message of this size, or with headers of this size; trying again is of no use."""


class NotTaken(BrokerError):
    """No queue took a message, although the broker is there; the text says why."""


class Unroutable(NotTaken):
    """No queue is bound for the message's routing key, so the broker returned it."""


class ExchangeMissing(Unroutable):
    """The message's exchange does not exist."""


class Unconfirmed(NotTaken):
    """The broker neither confirms nor refuses the message, as where a quorum queue has lost its majority."""


class PublishRefused(NotTaken):
    """The broker answered a publish with basic.nack, as a full queue with `reject-publish` does."""


class PublishForbidden(PublishRefused):
    """The user of `broker.url` lacks the right to publish to this exchange."""


class StaleDelivery(WorkerError):
    """The channel that brought this delivery is gone, so it can't be settled: the broker redelivers it."""


class Deferred(WorkerError):
    """The job can't be finished now, through no fault of its own; the text says why. It is deferred.

    With `further`, by a longer delay each time. With `if_there_is_time`, only where its deadline is not over by then.
    """

    def __init__(self, reason: str, *, further: bool = False, if_there_is_time: bool = False) -> None:
        super().__init__(reason)
        self.further = further
        self.if_there_is_time = if_there_is_time


class GaveWay(Deferred):
    """LCM answers the job's account slowly or not at all, and other jobs need the place in which it waits."""


class JobError(WorkerError):
    """What ends a job with the status `failed`.

    `remote_message` holds LCM's own words, where it sent any.

    Attributes:
        code: the `error.code` of the failed result.
        transient: whether the same job may succeed later.
        suspicious: whether many of them in a row point to a fault of what sends the jobs, of LCM or of this worker,
            not of single jobs; the guard counts these.
    """

    code: ClassVar[str]
    transient: ClassVar[bool] = False
    suspicious: ClassVar[bool] = False

    def __init__(self, message: str, *, remote_message: str = "") -> None:
        super().__init__(message)
        self.remote_message = remote_message

    @property
    def message(self) -> str:
        """The text of a failed result's `error.message`."""
        return f"{self}: {self.remote_message}" if self.remote_message else str(self)


class InvalidJob(JobError):
    """The job's body, a field of it, or its size is wrong.

    `message` quotes what was found, which may be an account number in the wrong field; `str()` does not.

    `job` holds what could be read, enough for the failed result and the dead-letter copy; its
    `account_number` is "" where that field couldn't be read.
    """

    code = "invalid_job"

    def __init__(self, message: str, *, job: Job, unquoted: str = "") -> None:
        super().__init__(unquoted or message)
        self.job = job
        self._whole = message

    @property
    def message(self) -> str:
        """What is wrong, and what was found."""
        return self._whole


class Expired(JobError):
    """The job is past its own deadline."""

    code = "expired"


class Poison(JobError):
    """The job has come back as often as the broker allows: it seems to kill workers."""

    code = "poison"


class ResultTooLarge(JobError):
    """The broker takes no message of the result's size, or of its headers'."""

    code = "result_too_large"


class InternalError(JobError):
    """A defect of this worker; the log line has the traceback."""

    code = "internal"
    transient = True
    suspicious = True


class LookupFailed(JobError):
    """An exchange with LCM did not give an outcome list."""


class LcmRejected(LookupFailed):
    """LCM answered with an error about this account."""

    code = "lcm_rejected"
    suspicious = True


class LcmError(LookupFailed):
    """LCM answered with an error about itself; the session is closed."""

    code = "lcm_error"
    transient = True
    suspicious = True


class ReplyTimeout(LookupFailed):
    """LCM did not reply in time; the session is closed."""

    code = "timeout"
    transient = True
    suspicious = True


class ConnectionLost(LookupFailed):
    """The session closed in mid-exchange."""

    code = "connection_lost"
    transient = True
    suspicious = True


class MalformedReply(LookupFailed):
    """LCM's reply can't be read as an outcome list; the session is closed."""

    code = "malformed_reply"
    transient = True
    suspicious = True


class ReplyTooLarge(LookupFailed):
    """LCM's reply is larger than `lcm.max_reply`; the session is closed."""

    code = "reply_too_large"
    suspicious = True


def _coded(base: type[JobError]) -> Iterator[type[JobError]]:
    for error in base.__subclasses__():
        if "code" in vars(error):
            yield error
        yield from _coded(error)


ERRORS: Mapping[str, type[JobError]] = {error.code: error for error in _coded(JobError)}
"""Every `error.code` that a failed result can have, with what raises it."""


class FailureAction(Enum):
    """What the pipeline does with a job that an error ended."""

    RETRY = "retry later, then fail"
    FAIL = "dead-letter, then a failed result"
    EXPIRE = "a failed result alone"


def remedy_for(error: JobError) -> FailureAction:
    """Decide, for the whole worker, what becomes of a job that ended with this error."""
    if isinstance(error, Expired):
        return FailureAction.EXPIRE
    return FailureAction.RETRY if error.transient else FailureAction.FAIL
