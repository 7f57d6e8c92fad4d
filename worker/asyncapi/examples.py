"""Examples of the messages: jobs as a producer would write them, and what this worker's own code makes of them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from worker.contract import job_copies, result
from worker.contract.errors import JobError, LcmRejected
from worker.contract.job import Job
from worker.contract.job_reader import read_job
from worker.contract.lookup import ExchangeTiming, LookupResult
from worker.contract.message import Message, Properties
from worker.contract.outcomes import OutcomeList

JOBS: dict[str, dict[str, Any]] = {
    "complete": {
        "account_number": "18|1|2|0|0|44|274",
        "job_id": "job-1",
        "route": "emea",
        "deadline": "2099-01-31T12:05:00Z",
        "metadata": {"campaign": 7},
    },
    "smallest": {"account_number": "18|1|2|0|0|44|274"},
}
_TRACE = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}
_ANSWERED_AT = datetime(2026, 1, 31, 12, 0, 0, 123_000, UTC)
_COMPLETED_AT = datetime(2026, 1, 31, 12, 0, 0, 131_000, UTC)
_WORKER = "host-1-4711"
_COMPLETION = result.Completion(attempts=1, completed_at=_COMPLETED_AT, duration_ms=8.2, worker=_WORKER)


def job_examples() -> list[dict[str, Any]]:
    return [
        {"name": name, "headers": dict(_TRACE) if name == "complete" else {}, "payload": body}
        for name, body in JOBS.items()
    ]


def succeeded_example() -> dict[str, Any]:
    items = OutcomeList([("7", " Answering  Machine"), ("0", "Success")])
    found = LookupResult(items, _ANSWERED_AT, _ANSWERED_AT, ExchangeTiming(session=1, exchange=1, seconds=0))
    message = result.succeeded(_job(), found, _COMPLETION, amqp_exchange="")
    return _example("two outcomes", message)


def failed_example() -> dict[str, Any]:
    return _example("refused by LCM", result.failed(_job(), _error(), _COMPLETION, amqp_exchange=""))


def dead_example() -> dict[str, Any]:
    properties = job_copies.dead_copy(
        Properties(headers=_TRACE), _job(), _error(), attempts=1, failed_at=_COMPLETED_AT, worker=_WORKER
    )
    return {"name": "refused by LCM", "headers": dict(properties.headers), "payload": JOBS["complete"]}


def _job() -> Job:
    return read_job(msgspec.json.encode(JOBS["complete"]), Properties(headers=_TRACE))


def _error() -> JobError:
    return LcmRejected("LCM rejected the account", remote_message="WS_Error: Invalid account number")


def _example(name: str, message: Message) -> dict[str, Any]:
    return {
        "name": name,
        "headers": dict(message.properties.headers),
        "payload": msgspec.json.decode(message.body),
    }
