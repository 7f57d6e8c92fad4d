"""A status as one JSON document, in which null stands for what is not known."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from worker.broker.admin.inspect import Finding
from worker.cli.levels import exit_status
from worker.cli.status.gathering import Status
from worker.cli.status.workers import WorkerState
from worker.common.text import rfc3339


def document_of(status: Status, findings: Sequence[Finding], hide: Callable[[str], str]) -> dict[str, Any]:
    """Return the document; `hide` masks secrets in the findings."""
    look, told = status.look, status.statistics
    return {
        "at": rfc3339(status.at),
        "exit_status": exit_status(findings),
        "findings": [
            {"level": each.level, "what": each.what, "detail": hide(each.detail)} for each in findings
        ],
        "broker": {
            "url": look.broker if look else None,
            "answers": look is not None,
            "takes_messages": look.takes_messages if look else None,
            "missing_exchanges": look.missing_exchanges if look else None,
        },
        "queues": list(_queues(status)),
        "workers": {
            "consumers": status.queue(status.topology.jobs).consumers,
            "limit": None
            if status.fleet is None
            else {"sessions": status.fleet.sessions, "rate": status.fleet.rate},
            "seen": None if status.fleet is None else [_worker(each, hide) for each in status.fleet.workers],
        },
        "results_to": None
        if told is None
        else [{"to": to, "routing_key": key} for to, key in told.results_to],
        "dead_reasons": None
        if status.reasons is None
        else [
            {
                "code": each.code,
                "count": each.count,
                "oldest": rfc3339(each.oldest) if each.oldest else None,
            }
            for each in status.reasons
        ],
    }


def _worker(worker: WorkerState, hide: Callable[[str], str]) -> dict[str, Any]:
    return asdict(worker) | {"name": hide(worker.name), "paused": [hide(reason) for reason in worker.paused]}


def _queues(status: Status) -> Iterator[dict[str, Any]]:
    for name in queue_names(status):
        counted, told = status.queue(name), status.told(name)
        yield {
            "name": name,
            "state": counted.state,
            "ready": counted.ready,
            "consumers": counted.consumers,
            "oldest_s": status.age(name),
            "unacknowledged": told.unacknowledged,
            "published_per_s": told.publish_rate,
            "delivered_per_s": told.deliver_rate,
        }


def queue_names(status: Status) -> list[str]:
    """Return the names of the queues in the order of a job's way: jobs, retries, results, then what is left over."""
    topology = status.topology
    way = [topology.jobs, *status.retry_queues, topology.results, topology.undelivered, topology.dead]
    declared = {queue.name for queue in topology.queues}
    return [name for name in way if name in declared]
