"""Whether a result may go to the queue that its job names in `reply_to` as well.

A producer may not name just any queue: `broker.reply_to_prefixes` lists the prefixes of allowed names. A queue of this
worker's own is never allowed, or a result could become a job.
"""

from __future__ import annotations

from collections.abc import Sequence

DIRECT = "amq.rabbitmq.reply-to"
"""The pseudo-queue of RabbitMQ's direct reply-to. In a caller's message the broker replaces it by the name of the
caller's channel, which begins with this and a dot. The broker closes the channel of a publisher whose message still
holds just this name, unless it is such a caller."""


def refusal_of(reply_to: str, allowed: Sequence[str], own_prefix: str) -> str | None:
    """Return why nothing is sent to this queue, None where it may be."""
    if reply_to == DIRECT:
        return "it names no caller: direct reply-to did not survive the job's way to this queue"
    if reply_to.startswith(f"{own_prefix}."):
        return (
            f"it may be a queue of this worker's own, all of which begin with {own_prefix!r} (broker.prefix)"
        )
    if not any(reply_to.startswith(prefix) for prefix in allowed):
        return "it begins with none of broker.reply_to_prefixes"
    return None
