"""What the broker takes of a message: headers that fit into one frame, and a body up to its limit.

The broker closes the connection over a content header that is larger than `frame_max` (501), and the channel over a
body that is larger than its `max_message_size` (406); the reason of the latter names the limit.
"""

from __future__ import annotations

import re

from worker.broker.delivery import amqp_properties
from worker.broker.fields import WritableProperties, size_of
from worker.common.text import cut
from worker.contract.errors import MessageTooLarge
from worker.contract.job import OWN_PREFIX
from worker.contract.job_copies import HISTORY_HEADER
from worker.contract.message import Properties

DROPPED_HEADER = "outcome-headers-dropped"
"""Names the headers, separated by commas, that a message lost because they did not fit."""

_MAX_NAMES = 1024  # bytes that the names of dropped headers may take
_FRAMING = 20  # bytes beside the properties: the frame's own 8, and class, weight and size of the body
_SURELY_FITS = 1024  # characters of headers that fit into the smallest frame, 4,096 bytes, whatever they are
_LIMIT = re.compile(r"larger than configured max size (\d+)")


def fitted_properties(
    properties: Properties, frame_max: int, *, delivery_mode: int, user_id: str | None
) -> WritableProperties:
    """Return properties whose headers fit; where they don't, foreign ones are left out, the largest first.

    `frame_max` is the connection's, in bytes; 0 is no limit. `user_id` is the connection's user; None leaves it out.

    Raises:
        MessageTooLarge: the worker's own headers don't fit.
    """
    written = amqp_properties(properties, delivery_mode=delivery_mode, user_id=user_id)
    if not frame_max or _surely_fits(properties):
        return written
    droppable = sorted(
        (name for name in properties.headers if not name.startswith(OWN_PREFIX) or name == HISTORY_HEADER),
        key=lambda name: size_of({name: properties.headers[name]}),
    )
    dropped: list[str] = []
    while (size := _FRAMING + len(written.marshal())) > frame_max:
        if not droppable:
            raise MessageTooLarge(
                f"its headers take {size} bytes, and the connection's frame_max is {frame_max}"
            )
        dropped.append(droppable.pop())
        kept = {name: value for name, value in properties.headers.items() if name not in dropped}
        kept[DROPPED_HEADER] = cut(",".join(dropped), _MAX_NAMES)
        written.headers = kept
    return written


def limit_in(reason: str) -> int | None:
    """Return the size limit, in bytes, that the broker's reason for closing a channel names; None for another one."""
    found = _LIMIT.search(reason)
    return int(found[1]) if found else None


def _surely_fits(properties: Properties) -> bool:
    if not properties.headers:
        return True
    return all(isinstance(value, str) for value in properties.headers.values()) and (
        sum(len(name) + len(value) for name, value in properties.headers.items()) < _SURELY_FITS
    )
