"""What a status comes to in plain words, the most urgent first: why is nothing happening?"""

from __future__ import annotations

from collections.abc import Iterator

from worker.broker.admin.alarms import alarmed
from worker.broker.admin.inspect import Finding
from worker.broker.admin.management import told_of
from worker.cli.status.gathering import Status
from worker.cli.status.workers import FleetState

_URGENCY = ("away", "missing", "alarm", "stuck", "warn", "unknown", "ok")


def findings_of(status: Status, *, declares: bool) -> list[Finding]:
    """Say what is to be said, the most urgent first; `declares` whether workers declare what is missing."""
    found = (
        [Finding("away", "broker", status.away)] if status.away else list(_found(status, declares=declares))
    )
    return sorted(found, key=lambda finding: _URGENCY.index(finding.level))


def _found(status: Status, *, declares: bool) -> Iterator[Finding]:
    if status.look and not status.look.takes_messages:
        yield alarmed()
    yield from _missing(status, declares=declares)
    yield from _unknown(status)
    yield from _jobs(status)
    yield from _results(status)
    yield from _kept(status)
    if status.statistics is not None:
        yield from map(told_of, status.statistics.changes)
    if status.untold:
        yield Finding("away", "management", status.untold)
    if status.unread:
        yield Finding("unknown", "reasons", status.unread)


def _missing(status: Status, *, declares: bool) -> Iterator[Finding]:
    level = "warn" if declares else "missing"
    remedy = (
        "a worker declares {} as it starts" if declares else "declare {}, see `lcm-worker topology apply`"
    )
    queues = [queue.name for queue in status.topology.queues if status.queue(queue.name).state == "missing"]
    if len(queues) == len(status.topology.queues):
        doubt = "or are broker.prefix and the virtual host in broker.url others?"
        yield Finding(level, "queues", f"none of them exists: {remedy.format('them')}; {doubt}")
        return
    for kind, names in (
        ("exchange", status.look.missing_exchanges if status.look else ()),
        ("queue", queues),
    ):
        yield from (
            Finding(level, f"{kind} {name}", f"does not exist; {remedy.format('it')}") for name in names
        )


def _unknown(status: Status) -> Iterator[Finding]:
    for queue in status.topology.queues:
        if (counted := status.queue(queue.name)).state == "unknown":
            yield Finding("away", f"queue {queue.name}", counted.why)


def _jobs(status: Status) -> Iterator[Finding]:
    jobs = status.queue(status.topology.jobs)
    if jobs.ready is None:
        return
    later = sum(status.queue(name).ready or 0 for name in status.retry_queues)
    waiting = " and ".join(
        [f"{jobs.ready:,} wait"] * bool(jobs.ready) + [f"{later:,} are in retry queues"] * bool(later)
    )
    if waiting and not jobs.consumers:
        yield Finding("stuck", "jobs", f"{waiting}, and no worker takes any: {_why_no_worker(status.fleet)}")
    elif jobs.ready:
        yield Finding("ok", "jobs", f"{waiting}; {_takers(jobs.consumers)}")
    elif later:
        yield Finding(
            "warn",
            "jobs",
            f"all that is left, {later:,}, waits in retry queues and comes back by itself; where LCM was away or"
            " failed, the log has lcm.outage_started or job.retry_later",
        )
    elif not jobs.consumers:
        yield Finding("warn", "jobs", f"none waits, and no worker takes any: {_why_no_worker(status.fleet)}")
    elif _all_empty(status):
        yield Finding("ok", "jobs", f"nothing to do, all queues are empty; {_takers(jobs.consumers)}")
    else:
        yield Finding("ok", "jobs", f"none waits; {_takers(jobs.consumers)}")


def _all_empty(status: Status) -> bool:
    return all(status.queue(queue.name).ready == 0 for queue in status.topology.queues)


def _takers(consumers: int | None) -> str:
    return "1 consumer takes them" if consumers == 1 else f"{consumers or 0:,} consumers take them"


def _why_no_worker(fleet: FleetState | None) -> str:
    if fleet is None:
        return (
            "start one, or see /readyz or the log of those that run: worker.paused, as while LCM is away or the guard"
            " rests, or broker.unreachable, as where a user or a permission is wrong"
        )
    if not fleet.workers:
        return "none runs; start one"
    each = (f"{one.name} ({', '.join(one.paused) or 'not paused'})" for one in fleet.workers)
    return f"{len(fleet.workers)} run and take none: {'; '.join(each)}; see worker.paused in their log"


def _results(status: Status) -> Iterator[Finding]:
    if status.statistics is not None and not status.statistics.results_to:
        bind = "they are parked, or lost where their job is dead-lettered; bind a queue to it"
        yield Finding(
            "stuck", "results", f"no queue is bound to the exchange {status.topology.results}: {bind}"
        )
    results = status.queue(status.topology.results)
    if results.ready and results.consumers == 0:
        yield Finding(
            "warn",
            "results",
            f"{results.ready:,} wait and nobody consumes them; start their consumer, or set broker.results_queue"
            " to false where queues of others are bound",
        )


def _kept(status: Status) -> Iterator[Finding]:
    if count := status.queue(status.topology.undelivered).ready:
        yield Finding(
            "warn",
            "undelivered",
            f"{count:,} results were taken by no queue; bind, consume or repair it, and the workers send them; see"
            " `lcm-worker undelivered list`",
        )
    if count := status.queue(status.topology.dead).ready:
        yield Finding("warn", "dead", f"{count:,} jobs failed for good; see `lcm-worker dead list`")
