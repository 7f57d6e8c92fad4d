"""All metrics of the worker for Prometheus: one closed list, defined only here.

Names and units follow Prometheus's conventions: seconds, `_total` for counters. Labels are few, and their values come
from closed sets; nothing that belongs to one job, such as its account, is ever a label value.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from worker.contract.disposition import Disposition, Ending
from worker.contract.errors import ERRORS, LookupFailed
from worker.observability.readiness import NotReady

CONTENT_TYPE = CONTENT_TYPE_LATEST
PREFIX = "lcm_worker"

_DELIVERIES = tuple(dict.fromkeys(ending.label for ending in Ending if ending is not Ending.CRASHED))
_PUBLISHES = ("confirmed", "returned", "refused", "unconfirmed", "lost")
_UNDELIVERED = ("parked", "sent_again")
_NOT_ANSWERED = tuple(
    code for code, error in ERRORS.items() if issubclass(error, LookupFailed) and error.transient
)
_MILLISECOND = 0.001
_EXCHANGE = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_JOB = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_AGE = (0.1, 1, 5, 30, 60, 300, 900, 3600, 21600, 86400)


@dataclass(frozen=True, slots=True)
class Now:
    """What is not counted here, at the moment of a scrape.

    `against` holds the reasons for not being ready. `links` tells whether each connection to the broker is up, by role.
    `fleet` holds what is shared with other workers, of `workers`, `sessions` and `rate`. `tripped` counts the producers
    for which the guard has tripped, `dropped` the lines that the log has lost. `expiries` has the Unix time at which
    the certificate of a setting expires.
    """

    against: Collection[NotReady] = (NotReady.STARTING,)
    out: bool = False
    in_flight: int = 0
    sessions: Mapping[str, int] = field(default_factory=dict)
    waiting: int = 0
    links: Mapping[str, bool] = field(default_factory=dict)
    blocked: bool = False
    undelivered: int = 0
    fleet: Mapping[str, float] = field(default_factory=dict)
    tripped: int = 0
    dropped: int = 0
    expiries: Mapping[str, float] = field(default_factory=dict)


class Metrics(Collector):
    """Counts the end of each delivery, exchange and publish.

    What is counted are plain numbers, as each job adds to a dozen of them; only a scrape makes metrics of them.
    """

    def __init__(self, *, version: str) -> None:
        # A series that appears with its first event has no rate for it, so all of them are there from the start.
        self._deliveries = Counter(dict.fromkeys(_DELIVERIES, 0))
        self._failed = Counter(dict.fromkeys(ERRORS, 0))
        self._exchanges = Counter(dict.fromkeys(("answered", *_NOT_ANSWERED), 0))
        self._retries = 0
        self._publishes = Counter(dict.fromkeys(_PUBLISHES, 0))
        self._undelivered = Counter(dict.fromkeys(_UNDELIVERED, 0))
        self._lcm = _Times(_EXCHANGE)
        self._job = _Times(_JOB)
        self._publish = _Times(_EXCHANGE)
        self._age = _Times(_AGE)
        self._gauges = _Gauges(version)
        self._registry = CollectorRegistry()
        self._registry.register(self)

    @property
    def deliveries(self) -> Mapping[str, int]:
        """How many deliveries have ended, by what became of them."""
        return self._deliveries

    def ended(self, disposition: Disposition) -> None:
        """Take note of the end of a delivery."""
        self._deliveries[disposition.ending.label] += 1
        if disposition.ending.is_failure and disposition.error is not None:
            self._failed[disposition.error.code] += 1
        if disposition.exchanges > 1:
            self._retries += disposition.exchanges - 1
        if disposition.lookup_result is not None and not disposition.lookup_result.shared:
            self._lcm.observe(disposition.lookup_result.timing.seconds)
        self._job.observe(disposition.duration_ms * _MILLISECOND)
        if disposition.publish_ms:
            self._publish.observe(disposition.publish_ms * _MILLISECOND)
        if disposition.queue_ms is not None:
            self._age.observe(disposition.queue_ms * _MILLISECOND)

    def exchanged(self, result: str) -> None:
        """Take note of an exchange: `answered`, or an error's code."""
        self._exchanges[result] += 1

    def published(self, result: str) -> None:
        """Take note of how a publish ended: a value of _PUBLISHES."""
        self._publishes[result] += 1

    def parked(self) -> None:
        """Take note of a result that was parked in the undelivered queue."""
        self._undelivered["parked"] += 1

    def sent_again(self, results: int) -> None:
        """Take note of parked results that were sent again."""
        self._undelivered["sent_again"] += results

    def page(self, now: Now) -> bytes:
        """Return everything in Prometheus's text format, as CONTENT_TYPE says."""
        self._gauges.now = now
        return generate_latest(self._registry)

    def families(self) -> Iterable[Metric]:
        """Yield each metric, for whoever lists them."""
        return self._registry.collect()

    def collect(self) -> Iterable[Metric]:
        """Yield what the registry asks for at a scrape."""
        yield from self._gauges.collect()
        yield _counters("deliveries", "Deliveries by what became of them.", "result", self._deliveries)
        yield _counters("failed_jobs", "Jobs that failed for good, by error code.", "error", self._failed)
        yield _counters(
            "exchanges",
            "Exchanges with LCM: answered (also by an error about the account), or the error code.",
            "result",
            self._exchanges,
        )
        yield CounterMetricFamily(
            f"{PREFIX}_retries",
            "Exchanges that were made again at once, after a transient error.",
            self._retries,
        )
        yield _counters(
            "publishes",
            "Messages published, by how that ended: confirmed; returned, as no queue is bound; refused by the "
            "broker; unconfirmed; lost, with the channel or connection, and published again.",
            "result",
            self._publishes,
        )
        yield _counters(
            "undelivered",
            "Results that no queue took: parked in the undelivered queue, and sent again from there.",
            "result",
            self._undelivered,
        )
        yield self._lcm.family("lcm_seconds", "Time of the answered exchange of a job.")
        yield self._job.family("job_seconds", "Time from a delivery's arrival to its end.")
        yield self._publish.family(
            "publish_seconds", "Time until everything that a delivery led to was confirmed."
        )
        yield self._age.family("queue_age_seconds", "Age of jobs on arrival, where they carry a timestamp.")


class _Times:
    """How many times in seconds were up to each bound but above the one before it, and their sum."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._sum += seconds

    def family(self, name: str, says: str) -> Metric:
        names = map(floatToGoString, (*self._bounds, math.inf))
        buckets = list(zip(names, accumulate(self._counts), strict=True))
        return HistogramMetricFamily(f"{PREFIX}_{name}", says, buckets, self._sum)


class _Gauges:
    """Collects the gauges, and what others count, at the moment of a scrape."""

    def __init__(self, version: str) -> None:
        self.now = Now()
        self._version = version

    def collect(self) -> Iterable[Metric]:
        now = self.now
        yield InfoMetricFamily(PREFIX, "The worker's version.", {"version": self._version})
        yield _gauge("ready", "Whether the worker is ready: 1, or 0.", int(not now.against))
        reasons = {reason.code: int(reason in now.against) for reason in NotReady}
        yield _gauges(
            "not_ready", "Whether this keeps the worker from being ready: 1, or 0.", "reason", reasons
        )
        yield _gauge("lcm_outage", "Whether LCM counts as out: 1, or 0.", int(now.out))
        yield _gauge("broker_blocked", "Whether the broker takes no messages: 1, or 0.", int(now.blocked))
        yield _gauge("guard_tripped", "Producers for which the guard has tripped.", now.tripped)
        yield _gauge("in_flight_deliveries", "Deliveries in work.", now.in_flight)
        yield _gauge(
            "undelivered_waiting",
            "Results in the undelivered queue, when it was last looked at.",
            now.undelivered,
        )
        yield _gauge("session_waiters", "Exchanges that wait for a session.", now.waiting)
        yield _gauges("sessions", "Sessions with LCM by state.", "state", now.sessions)
        fleet = now.fleet
        yield _gauge("fleet_workers", "Workers that share a limit, this one included.", fleet.get("workers"))
        yield _gauge("fleet_sessions", "This worker's share of the sessions of all.", fleet.get("sessions"))
        yield _gauge(
            "fleet_rate", "This worker's share of the exchanges per second of all.", fleet.get("rate")
        )
        yield _gauges(
            "broker_link_up", "Whether each connection to the broker is up: 1, or 0.", "role", now.links
        )
        yield _gauges(
            "certificate_expiry_timestamp_seconds",
            "When the certificate in the file of a setting expires, in seconds since 1970.",
            "setting",
            now.expiries,
        )
        yield CounterMetricFamily(
            f"{PREFIX}_log_lines_dropped", "Lines of the log that could not be written.", now.dropped
        )


def _counters(name: str, says: str, label: str, values: Mapping[str, float]) -> Metric:
    family = CounterMetricFamily(f"{PREFIX}_{name}", says, labels=[label])
    for value, number in values.items():
        family.add_metric([value], number)
    return family


def _gauge(name: str, says: str, value: float | None) -> Metric:
    """Return a gauge, without a sample where there is no such value."""
    return GaugeMetricFamily(f"{PREFIX}_{name}", says, value)


def _gauges(name: str, says: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(f"{PREFIX}_{name}", says, labels=[label])
    for value, number in values.items():
        family.add_metric([value], number)
    return family
