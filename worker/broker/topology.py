"""The exchanges, queues and bindings of this worker, as data.

Everything is named after `broker.prefix`. Retry queues have one fixed TTL each, since a TTL per message would
let a long one block the short ones behind it. Wherever the broker itself moves a message, it does so at least
once, which it only offers for quorum queues that reject publishes when full.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from worker.common.durations import format_duration
from worker.settings import BrokerSettings

JOB_KEY = "job"
DEAD_KEY = "dead"
UNDELIVERED_KEY = "undelivered"
BEAT_KEY = "beat"
KEPT = {"x-delivery-limit": 1_000_000, "x-overflow": "reject-publish"}
"""Arguments of queues whose messages are kept until somebody takes them, and browsed and returned meanwhile.

The delivery limit is never reached: without one, RabbitMQ 4.x drops a message of a quorum queue after 20 returns; with
-1, 3.10 drops it at the first. A length limit, as by a policy, refuses messages rather than dropping the oldest.
"""


_BEATS = {"x-max-age": "1h", "x-stream-max-segment-size-bytes": 1_000_000}
"""Whole segments go once their newest entry is an hour old; who joins reads all that are left."""


@dataclass(frozen=True, slots=True)
class Exchange:
    name: str
    kind: str


@dataclass(frozen=True, slots=True)
class Queue:
    """A durable queue, replicated by either kind; `arguments` are those beside its type."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    kind: str = "quorum"

    @property
    def all_arguments(self) -> dict[str, Any]:
        return {"x-queue-type": self.kind, **self.arguments}


@dataclass(frozen=True, slots=True)
class Binding:
    exchange: str
    queue: str
    key: str


@dataclass(frozen=True, slots=True)
class RetryStep:
    """One delay of the way through the retry queues: its length in seconds and its routing key."""

    delay: float
    key: str


@dataclass(frozen=True, slots=True)
class Topology:
    """All entities in the order in which they can be declared, and the names that code needs."""

    jobs: str
    results: str
    retry: str
    dead: str
    undelivered: str
    fleet: str
    retry_steps: tuple[RetryStep, ...]
    exchanges: tuple[Exchange, ...]
    queues: tuple[Queue, ...]
    bindings: tuple[Binding, ...]

    @property
    def entities(self) -> tuple[Exchange | Queue, ...]:
        return (*self.exchanges, *self.queues)


def topology_of(settings: BrokerSettings, *, fleet: bool = False) -> Topology:
    """Derive the topology from the settings; with `fleet`, where workers share a limit, also the log of their beats."""
    prefix = settings.prefix
    jobs, results, retry, dead, undelivered, beats = (
        f"{prefix}.{name}" for name in ("jobs", "results", "retry", "dead", "undelivered", "fleet")
    )
    logs = (Queue(beats, _BEATS, "stream"),) if fleet else ()
    steps = tuple(RetryStep(delay, format_duration(delay)) for delay in settings.retry_delays)
    jobs_queue = Queue(
        jobs, {"x-delivery-limit": settings.delivery_limit, **_dead_lettered_to(dead, DEAD_KEY)}
    )
    retry_queues = tuple(
        Queue(
            f"{retry}.{step.key}",
            {"x-message-ttl": round(step.delay * 1000), **_dead_lettered_to(jobs, JOB_KEY)},
        )
        for step in steps
    )
    results_queues = (Queue(results, KEPT),) if settings.results_queue else ()
    return Topology(
        jobs=jobs,
        results=results,
        retry=retry,
        dead=dead,
        undelivered=undelivered,
        fleet=beats,
        retry_steps=steps,
        exchanges=(
            Exchange(jobs, "direct"),
            Exchange(results, "topic"),
            Exchange(retry, "direct"),
            Exchange(dead, "direct"),
            Exchange(undelivered, "direct"),
            *(Exchange(each.name, "direct") for each in logs),
        ),
        queues=(
            Queue(dead, KEPT),
            Queue(undelivered, {**KEPT, "x-max-length": settings.undelivered_limit}),
            *results_queues,
            jobs_queue,
            *retry_queues,
            *logs,
        ),
        bindings=(
            Binding(dead, dead, DEAD_KEY),
            Binding(undelivered, undelivered, UNDELIVERED_KEY),
            *(Binding(results, queue.name, "#") for queue in results_queues),
            Binding(jobs, jobs, JOB_KEY),
            *(Binding(retry, f"{retry}.{step.key}", step.key) for step in steps),
            *(Binding(beats, each.name, BEAT_KEY) for each in logs),
        ),
    )


def fleet_part(topology: Topology) -> Topology:
    """Return the log of the workers' beats alone."""
    return replace(
        topology,
        exchanges=tuple(each for each in topology.exchanges if each.name == topology.fleet),
        queues=tuple(each for each in topology.queues if each.name == topology.fleet),
        bindings=tuple(each for each in topology.bindings if each.queue == topology.fleet),
    )


def _dead_lettered_to(exchange: str, key: str) -> dict[str, Any]:
    return {
        "x-dead-letter-exchange": exchange,
        "x-dead-letter-routing-key": key,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }
