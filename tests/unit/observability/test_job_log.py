"""One line per delivery, with all that the contract promises in it, and totals of them."""

from __future__ import annotations

from datetime import UTC, datetime
from io import BytesIO
from typing import Any

import msgspec
import pytest

from tests.support.log import RecordingLog
from worker.contract.disposition import Disposition, Ending, Sent
from worker.contract.errors import Expired, InternalError, JobError, LcmRejected, ReplyTimeout
from worker.contract.job import Producer
from worker.contract.lookup import ExchangeTiming, LookupResult
from worker.contract.outcomes import OutcomeList
from worker.observability.job_log import JobLog
from worker.observability.log import build_log
from worker.settings import LogSettings

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
FIELDS = {
    "job_id", "account", "attempts", "source", "outcomes", "error", "session", "exchange", "queue_ms",
    "lcm_ms", "publish_ms", "duration_ms", "redelivered", "trace_id", "app_id", "user_id",
}  # fmt: skip


class Stream(BytesIO):
    def isatty(self) -> bool:
        return False


def ended(ending: Ending, error: JobError | None = None, **fields: Any) -> Disposition:
    return Disposition(ending, job_id="job-1", account="18|1", error=error, **fields)


def succeeded(*, shared: bool = False) -> Disposition:
    found = LookupResult(OutcomeList(), NOW, NOW, ExchangeTiming(3, 9, 0.00824), shared=shared)
    return ended(
        Ending.SUCCEEDED, lookup_result=found, outcomes=2, attempts=1, publish_ms=1.5, duration_ms=9.9
    )


def line_for(disposition: Disposition, **settings: Any) -> dict[str, Any]:
    """Return the line as it is written, decoded."""
    stream = Stream()
    JobLog(build_log(LogSettings(format="json", **settings), worker="w-1", stream=stream))(disposition)
    found: dict[str, Any] = msgspec.json.decode(stream.getvalue().splitlines()[0])
    return found


@pytest.mark.parametrize(
    ("disposition", "level"),
    [
        (succeeded(), "info"),
        (ended(Ending.RETRY_LATER, ReplyTimeout("late"), delay=5.0), "info"),
        (ended(Ending.DEFERRED), "info"),
        (ended(Ending.STALE), "info"),
        (ended(Ending.FAILED, LcmRejected("no")), "warning"),
        (ended(Ending.FAILED, Expired("late")), "warning"),
    ],
    ids=lambda value: value.ending.label if isinstance(value, Disposition) else value,
)
def test_each_end_is_one_line_with_every_field(disposition: Disposition, level: str) -> None:
    """Whatever becomes of a delivery, its line has the contract's fields, at the contract's level."""
    log = RecordingLog()
    JobLog(log)(disposition)
    [(found_level, event, fields)] = log.lines
    assert (found_level, event) == (level, disposition.ending.event)
    assert fields.keys() >= FIELDS


def test_a_success_tells_where_its_answer_came_from() -> None:
    """The line of a success names session and exchange, and whether the answer was another job's."""
    for shared, source in ((False, "lcm"), (True, "shared")):
        line = line_for(succeeded(shared=shared))
        assert (line["source"], line["session"], line["exchange"]) == (source, 3, 9)
        assert (line["lcm_ms"], line["outcomes"], line["error"]) == (8.2, 2, None)


def test_a_failure_tells_where_it_was_asked_in_vain() -> None:
    """The line of a job without an answer names the session and the time of its last exchange, if there was one."""
    line = line_for(
        ended(
            Ending.FAILED,
            ReplyTimeout("late"),
            last_exchange=ExchangeTiming(session=2, exchange=7, seconds=10),
        )
    )
    assert (line["session"], line["exchange"], line["lcm_ms"]) == (2, 7, 10_000.0)
    never = line_for(ended(Ending.FAILED, Expired("late")))
    assert (never["session"], never["exchange"], never["lcm_ms"]) == (None, None, None)


def test_an_empty_list_is_told_from_none() -> None:
    """A success without outcomes has 0 of them, a failure has null."""
    assert line_for(ended(Ending.SUCCEEDED, outcomes=0))["outcomes"] == 0
    assert line_for(ended(Ending.FAILED, LcmRejected("no")))["outcomes"] is None


def test_an_error_is_told_by_code_and_in_words() -> None:
    """The line of a failure has the code, this worker's reason, and what LCM said in a field of its own."""
    line = line_for(ended(Ending.FAILED, LcmRejected("LCM rejected the account", remote_message="no 18|1")))
    assert (line["error"], line["reason"], line["said"]) == (
        "lcm_rejected",
        "LCM rejected the account",
        "no 18|1",
    )


def test_hashed_accounts_take_lcm_s_words_with_them() -> None:
    """With `accounts = "hashed"` neither the account nor what LCM said of it is in the line."""
    line = line_for(
        ended(Ending.FAILED, LcmRejected("rejected", remote_message="no 18|1")), accounts="hashed"
    )
    assert "18|1" not in str(line)
    assert line["account"].startswith("sha256:")


def test_a_defect_has_its_traceback_in_the_line() -> None:
    """The line of an `internal` error holds the traceback of what caused it; other errors have none."""
    defect = InternalError("a defect of the worker: ZeroDivisionError")
    defect.__cause__ = ZeroDivisionError("division by zero")
    line = line_for(ended(Ending.RETRY_LATER, defect))
    assert "ZeroDivisionError: division by zero" in line["exception"]
    assert "exception" not in line_for(ended(Ending.RETRY_LATER, ReplyTimeout("late")))


def test_a_retry_tells_its_delay() -> None:
    """The line of a job that is put off says for how many seconds; others don't."""
    assert line_for(ended(Ending.RETRY_LATER, ReplyTimeout("late"), delay=5.0))["delay"] == 5.0
    assert "delay" not in line_for(succeeded())


def test_an_unroutable_failed_result_is_said() -> None:
    """Beside the job's own line, a failed result that nobody is bound for has one that names the job."""
    log = RecordingLog()
    JobLog(log)(ended(Ending.FAILED, LcmRejected("no"), sent=Sent.RETURNED))
    assert log.events == ["job.failed", "result.unroutable"]
    assert log.of("result.unroutable") == [{"job_id": "job-1", "account": "18|1"}]


def test_a_parked_result_is_told_on_the_job_s_line() -> None:
    """A result that waits in the undelivered queue is marked; others have no such field."""
    assert line_for(ended(Ending.SUCCEEDED, sent=Sent.PARKED))["parked"] is True
    assert "parked" not in line_for(ended(Ending.SUCCEEDED, sent=Sent.DELIVERED))


def test_totals_count_each_end() -> None:
    """The totals hold how many deliveries ended in each way, by the event's last word."""
    report = JobLog(RecordingLog())
    for disposition in (succeeded(), succeeded(), ended(Ending.FAILED, LcmRejected("no"))):
        report(disposition)
    assert report.totals == {"succeeded": 2, "failed": 1}


def test_a_line_tells_who_sent_the_job() -> None:
    """The user that the broker has verified and the application by its own word, or nothing where they are unknown."""
    line = line_for(ended(Ending.FAILED, LcmRejected("no"), producer=Producer("dialer", "crm", "emea")))
    assert (line["user_id"], line["app_id"]) == ("dialer", "crm")
    line = line_for(succeeded())
    assert (line["user_id"], line["app_id"]) == (None, None)


def test_a_line_tells_the_trace_of_its_job() -> None:
    """The trace that the job belongs to, or null where it names none."""
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    assert line_for(ended(Ending.FAILED, LcmRejected("no"), trace_id=trace_id))["trace_id"] == trace_id
    assert line_for(succeeded())["trace_id"] is None
