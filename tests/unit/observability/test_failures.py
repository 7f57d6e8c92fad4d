"""The last failure of each error code, without account numbers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from worker.contract.disposition import Disposition, Ending
from worker.contract.errors import InvalidJob, JobError, LcmRejected, ReplyTimeout
from worker.contract.job import Job
from worker.observability.failures import Failure, Failures

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
ACCOUNT = 'a|"1"\n47'


def test_each_code_is_counted_with_its_last_message() -> None:
    """Jobs that failed and those tried again count apart; time and message are the last; a success is no failure."""
    times = [NOON + timedelta(seconds=number) for number in range(5)]
    clock = iter(times)
    failures = Failures(lambda: next(clock))
    failures(Disposition(Ending.SUCCEEDED))
    failures(Disposition(Ending.RETRY_LATER, error=ReplyTimeout("no reply in 10 s")))
    failures(Disposition(Ending.FAILED, error=ReplyTimeout("no reply in 20 s")))
    failures(Disposition(Ending.REJECTED, error=LcmRejected("rejected")))
    assert failures.since == times[0]
    assert failures.by_code == {
        "timeout": Failure(failed=1, retried=1, last=times[2], message="no reply in 20 s"),
        "lcm_rejected": Failure(failed=1, retried=0, last=times[3], message="rejected"),
    }


@pytest.mark.parametrize(
    "error",
    [
        LcmRejected("LCM rejected the account", remote_message=f"no account {ACCOUNT}"),
        LcmRejected(f"LCM rejected {ACCOUNT}"),
        LcmRejected(f"LCM rejected {ACCOUNT!r}"),
        InvalidJob(
            f"deadline is {ACCOUNT!r}",
            job=Job(job_id="j", account_number=ACCOUNT, correlation_id="j"),
            unquoted="deadline is no time",
        ),
    ],
)
@pytest.mark.parametrize(("account", "unread"), [(ACCOUNT, ""), ("", ACCOUNT)])
def test_no_message_holds_an_account(error: JobError, account: str, unread: str) -> None:
    """Neither LCM's words nor the job's own fields bring an account number there, nor a hash that confirms a guess."""
    failures = Failures()
    failures(Disposition(Ending.FAILED, error=error, account=account, unread=unread))
    [failure] = failures.by_code.values()
    assert failure.message
    assert "47" not in failure.message
    assert "sha256" not in failure.message
