"""What is counted and measured: each end of a delivery, exchange and publish, and nothing that isn't on the list."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from worker.contract.disposition import Disposition, Ending
from worker.contract.errors import ERRORS, Expired, InvalidJob, LcmRejected, LookupFailed, ReplyTimeout
from worker.contract.job import Job
from worker.contract.lookup import ExchangeTiming, LookupResult
from worker.contract.outcomes import OutcomeList
from worker.observability.metrics import CONTENT_TYPE, Metrics, Now
from worker.observability.readiness import NotReady

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
NOTHING = Now()


def samples(metrics: Metrics, now: Now = NOTHING) -> dict[str, float]:
    """Return every sample as its text names it, but for the buckets of histograms."""
    found = {}
    for line in metrics.page(now).decode().splitlines():
        name, _, value = line.rpartition(" ")
        if not line.startswith("#") and "_bucket{" not in name:
            found[name.removeprefix("lcm_worker_")] = float(value)
    return found


def added(tell: Callable[[Metrics], None]) -> dict[str, float]:
    """Return by how much each sample has grown."""
    metrics = Metrics(version="1")
    before = samples(metrics)
    tell(metrics)
    after = samples(metrics)
    assert after.keys() == before.keys(), "a series appeared with its first event"
    return {name: round(after[name] - before[name], 6) for name in after if after[name] != before[name]}


def found(*, shared: bool = False) -> LookupResult:
    return LookupResult(OutcomeList(), NOW, NOW, ExchangeTiming(1, 1, 0.25), shared=shared)


def ended(ending: Ending, **fields: Any) -> dict[str, float]:
    """Return what the end of a delivery adds, beside the job's own time."""
    grown = added(lambda metrics: metrics.ended(Disposition(ending, duration_ms=500, **fields)))
    assert (grown.pop("job_seconds_count"), grown.pop("job_seconds_sum")) == (1, 0.5)
    return grown


@pytest.mark.parametrize("ending", [ending for ending in Ending if ending is not Ending.CRASHED])
def test_each_ending_is_counted_by_its_name(ending: Ending) -> None:
    """A delivery adds one to the count of its ending, and its duration, whatever became of it."""
    assert ended(ending) == {f'deliveries_total{{result="{ending.label}"}}': 1}


def test_a_success_adds_its_times() -> None:
    """The exchange, the confirms and the age on arrival are measured in seconds."""
    assert ended(Ending.SUCCEEDED, lookup_result=found(), exchanges=1, publish_ms=20, queue_ms=3000) == {
        'deliveries_total{result="succeeded"}': 1,
        "lcm_seconds_count": 1,
        "lcm_seconds_sum": 0.25,
        "publish_seconds_count": 1,
        "publish_seconds_sum": 0.02,
        "queue_age_seconds_count": 1,
        "queue_age_seconds_sum": 3,
    }


def test_a_shared_exchange_is_measured_once() -> None:
    """A job that is answered by another job's exchange adds no exchange time."""
    assert ended(Ending.SUCCEEDED, lookup_result=found(shared=True)) == {
        'deliveries_total{result="succeeded"}': 1
    }


def test_a_job_without_an_age_has_none() -> None:
    """A job that carries no time stamp is not taken for one that has just been published; an age of 0 counts."""
    assert "queue_age_seconds_count" not in ended(Ending.SUCCEEDED, queue_ms=None)
    assert ended(Ending.SUCCEEDED, queue_ms=0.0)["queue_age_seconds_count"] == 1


@pytest.mark.parametrize("code", ERRORS)
def test_a_failure_is_counted_by_its_error(code: str) -> None:
    """A job that failed for good adds one to its error code; one that is tried later adds nothing there."""
    job = Job(job_id="job-1", account_number="", correlation_id="")
    error = InvalidJob("no", job=job) if code == "invalid_job" else ERRORS[code]("no")
    assert ended(Ending.FAILED, error=error) == {
        'deliveries_total{result="failed"}': 1,
        f'failed_jobs_total{{error="{code}"}}': 1,
    }
    assert ended(Ending.RETRY_LATER, error=error) == {'deliveries_total{result="retry_later"}': 1}


@pytest.mark.parametrize(("exchanges", "retries"), [(0, 0), (1, 0), (2, 1), (5, 4)])
def test_all_exchanges_but_the_first_are_retries(exchanges: int, retries: int) -> None:
    """What a delivery asked again counts as a retry, whatever became of it."""
    grown = ended(Ending.RETRY_LATER, error=ReplyTimeout("late"), exchanges=exchanges)
    assert grown.get("retries_total", 0) == retries


ANSWERS = ["answered"] + [
    code for code, error in ERRORS.items() if issubclass(error, LookupFailed) and error.transient
]


@pytest.mark.parametrize("result", ANSWERS)
def test_an_exchange_is_counted_by_how_it_ended(result: str) -> None:
    """An exchange was answered, or has the code of a transient error; there is a series for each from the start."""
    assert added(lambda metrics: metrics.exchanged(result)) == {f'exchanges_total{{result="{result}"}}': 1}


@pytest.mark.parametrize("result", ["confirmed", "returned", "refused", "lost"])
def test_a_publish_is_counted_by_how_it_ended(result: str) -> None:
    """There are four ways for a publish to end, and a series for each from the start."""
    assert added(lambda metrics: metrics.published(result)) == {f'publishes_total{{result="{result}"}}': 1}


def test_labels_are_closed_sets() -> None:
    """Whatever jobs bring, no label has a value that was not there at the start, and none belongs to one job."""
    metrics = Metrics(version="1")
    before = samples(metrics).keys()
    assert {label for family in metrics.families() for sample in family.samples for label in sample.labels} == {
        "result", "error", "version", "le", "reason"
    }  # fmt: skip
    for error in (LcmRejected("no", remote_message="18|1"), Expired("late")):
        metrics.ended(Disposition(Ending.FAILED, job_id="job-1", account="18|1", error=error))
    assert samples(metrics).keys() == before
    assert b"18|1" not in metrics.page(NOTHING)
    assert b"job-1" not in metrics.page(NOTHING)


def test_gauges_are_those_of_the_moment() -> None:
    """Each page tells what is true when it is asked for."""
    metrics = Metrics(version="1.2")
    now = Now(
        against=(),
        out=True,
        in_flight=3,
        sessions={"busy": 2, "idle": 1},
        waiting=5,
        links={"consume": True, "publish": False},
        blocked=True,
        undelivered=7,
        tripped=2,
        dropped=9,
    )
    found = samples(metrics, now)
    counted = ("deliveries", "failed", "exchanges", "retries", "publishes", "undelivered_total")
    gauges = {name: found[name] for name in found if not name.startswith(counted) and "_seconds" not in name}
    assert {name: value for name, value in gauges.items() if "not_ready" not in name} == {
        'info{version="1.2"}': 1,
        "ready": 1,
        "lcm_outage": 1,
        "broker_blocked": 1,
        "guard_tripped": 2,
        "log_lines_dropped_total": 9,
        "in_flight_deliveries": 3,
        "session_waiters": 5,
        "undelivered_waiting": 7,
        'sessions{state="busy"}': 2,
        'sessions{state="idle"}': 1,
        'broker_link_up{role="consume"}': 1,
        'broker_link_up{role="publish"}': 0,
    }
    assert samples(metrics)["ready"] == 0


def test_each_reason_for_not_being_ready_has_its_series() -> None:
    """Those that are present are 1, all others 0, so that no alert goes on for one that is over."""
    present = (NotReady.GUARD, NotReady.BLOCKED)
    found = samples(Metrics(version="1"), Now(against=present))
    assert found["ready"] == 0
    assert {name: value for name, value in found.items() if "not_ready" in name} == {
        f'not_ready{{reason="{reason.code}"}}': int(reason in present) for reason in NotReady
    }


def test_the_expiry_of_certificates_is_told_by_setting() -> None:
    """A setting without a certificate has no series."""
    found = samples(Metrics(version="1"), Now(expiries={"lcm.cert_file": 1893456000.0}))
    assert {name: value for name, value in found.items() if "certificate" in name} == {
        'certificate_expiry_timestamp_seconds{setting="lcm.cert_file"}': 1893456000
    }


def test_two_workers_of_one_process_count_apart() -> None:
    """There is no global registry: what one counts the other doesn't."""
    one, other = Metrics(version="1"), Metrics(version="1")
    one.published("confirmed")
    assert samples(other)['publishes_total{result="confirmed"}'] == 0


def test_the_text_format_is_read_by_others() -> None:
    """The page is what its content type says: each family with help and type, in units of Prometheus's choice."""
    metrics = Metrics(version="1")
    metrics.ended(
        Disposition(Ending.SUCCEEDED, lookup_result=found(), duration_ms=9, publish_ms=1, queue_ms=1)
    )
    page = metrics.page(Now(sessions={"busy": 1}, links={"consume": True}))
    families = list(text_string_to_metric_families(page.decode()))
    assert CONTENT_TYPE.startswith("text/plain; version=")
    assert all(family.name.startswith("lcm_worker") and family.documentation for family in families)
    assert {family.type for family in families} == {"counter", "gauge", "histogram"}
    assert {family.name for family in families if family.type == "histogram"} == {
        f"lcm_worker_{name}_seconds" for name in ("lcm", "job", "publish", "queue_age")
    }


@given(st.lists(st.sampled_from([100.0, 1000.0, 30_000.0, 86_400_000.0]) | st.floats(0, 1e9), max_size=30))
def test_a_histogram_is_the_client_s_own(ages: list[float]) -> None:
    """The page tells times as the client's histogram of the same bounds does, those on a bound among them."""
    metrics, registry = Metrics(version="1"), CollectorRegistry()
    bounds = (0.1, 1, 5, 30, 60, 300, 900, 3600, 21600, 86400)
    says = "Age of jobs on arrival, where they carry a timestamp."
    histogram = Histogram("lcm_worker_queue_age_seconds", says, buckets=bounds, registry=registry)
    for age in ages:
        metrics.ended(Disposition(Ending.SUCCEEDED, queue_ms=age))
        histogram.observe(age * 0.001)
    theirs = [line for line in generate_latest(registry).splitlines() if b"_created" not in line]
    assert metrics.page(NOTHING).splitlines()[-len(theirs) :] == theirs
