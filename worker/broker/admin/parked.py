"""Parked results: reading them. Pure."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from worker.broker.admin.dead_letter import contents_of, timestamp
from worker.broker.undelivered import unparked
from worker.contract.message import Delivery, Message

FOREIGN = "foreign"
"""The routing key, for people, of a message that is no parked result."""


class _Body(msgspec.Struct):
    job_id: str = ""


@dataclass(frozen=True, slots=True)
class Parked:
    """One parked result without its body. `completed_at` is aware, None where the message doesn't tell.

    `message` is the result as it is sent again; None for a message that is no parked result.
    """

    routing_key: str
    job_id: str
    completed_at: datetime | None
    message: Message | None


def read_parked(delivery: Delivery, results: str, users: Container[str | None]) -> Parked:
    """Read a message of the undelivered queue, whatever it is.

    Args:
        delivery: the message.
        results: the name of the AMQP exchange for results.
        users: ours; what others published is no parked result.
    """
    message = unparked(delivery, results, users)
    try:
        job_id = msgspec.json.decode(delivery.body, type=_Body).job_id
    except (msgspec.DecodeError, RecursionError):
        job_id = ""
    return Parked(message.routing_key if message else FOREIGN, job_id, delivery.properties.timestamp, message)


def record_of(delivery: Delivery, parked: Parked) -> Mapping[str, Any]:
    """Return all of a parked result as one JSON object; the body is text, or `body_base64` where it is not UTF-8."""
    return {
        "job_id": parked.job_id,
        "routing_key": parked.routing_key,
        "completed_at": timestamp(parked.completed_at),
        **contents_of(delivery),
    }
