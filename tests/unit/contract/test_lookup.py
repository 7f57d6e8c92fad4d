"""A lookup request knows when going on is in vain, and a result where it is from."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from worker.contract.errors import Expired, LcmRejected, ReplyTimeout, StaleDelivery
from worker.contract.lookup import ExchangeTiming, LookupRequest, LookupResult
from worker.contract.outcomes import OutcomeList

DEADLINE = datetime(2026, 1, 31, 12, tzinfo=UTC)
MOMENT = timedelta(microseconds=1)


def test_a_request_without_a_deadline_never_expires() -> None:
    """As long as somebody wants the result, going on is not in vain."""
    LookupRequest("18|1").check(datetime.max.replace(tzinfo=UTC))


def test_a_request_expires_at_its_deadline() -> None:
    """Until the deadline it goes on, and from that very moment on no more; the error names the deadline."""
    request = LookupRequest("18|1", deadline=DEADLINE)
    request.check(DEADLINE - MOMENT)
    for moment in (DEADLINE, DEADLINE + MOMENT):
        with pytest.raises(Expired, match=r"deadline of 2026-01-31T12:00:00\+00:00$") as expired:
            request.check(moment)
        assert expired.value.remote_message == ""


def test_an_expired_request_tells_its_last_error() -> None:
    """What failed last is in the result's message, but where the log can leave it out: it may quote LCM."""
    request = LookupRequest("18|1", deadline=DEADLINE)
    request.note_failure(ReplyTimeout("no reply"))
    request.note_failure(LcmRejected("LCM rejected the account", remote_message="18|1 is busy"))
    with pytest.raises(Expired) as expired:
        request.check(DEADLINE)
    assert "busy" not in str(expired.value)
    assert expired.value.message.endswith("last error: lcm_rejected: LCM rejected the account: 18|1 is busy")


def test_a_request_that_nobody_wants_is_stale() -> None:
    """When its delivery can't be settled any more, that comes before a deadline that has passed as well."""
    wanted = [True]
    request = LookupRequest("18|1", deadline=DEADLINE, is_wanted=lambda: wanted[0])
    request.check(DEADLINE - MOMENT)
    wanted.clear()
    wanted.append(False)
    with pytest.raises(StaleDelivery):
        request.check(DEADLINE)


@pytest.mark.parametrize(("shared", "source"), [(False, "lcm"), (True, "shared")])
def test_a_result_tells_its_source(shared: bool, source: str) -> None:
    """The exchange was made for this job, or for another one with the same account."""
    result = LookupResult(OutcomeList(), DEADLINE, DEADLINE, ExchangeTiming(1, 1, 0.5), shared=shared)
    assert result.source == source
