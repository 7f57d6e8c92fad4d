"""What the broker takes of a message: headers that fit into one frame, and a body up to its limit.

The broker closes the connection over a content header that is larger than `frame_max` (501), and the channel over a
body that is larger than its `max_message_size` (406); the reason of the latter names the limit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

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
_MAX_CHARACTER = 4
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
    size = _FRAMING + len(written.marshal())
    if size > frame_max:
        written.headers = _fitted(properties.headers, size, frame_max)
    return written


def _fitted(headers: Mapping[str, Any], size: int, frame_max: int) -> dict[str, Any]:
    # A frame holds tens of thousands of headers: each is measured once.
    kept = dict(headers)
    size -= _size_in_table(DROPPED_HEADER, kept.pop(DROPPED_HEADER)) if DROPPED_HEADER in kept else 0
    sizes = {
        name: _size_in_table(name, value)
        for name, value in kept.items()
        if not name.startswith(OWN_PREFIX) or name == HISTORY_HEADER
    }
    named, names = list[str](), ""
    for name in sorted(sizes, key=lambda name: sizes[name], reverse=True):
        size -= sizes[name]
        del kept[name]
        if len(names.encode()) < _MAX_NAMES - _MAX_CHARACTER:
            named.append(name)
            names = cut(",".join(named), _MAX_NAMES)
        if size + _size_in_table(DROPPED_HEADER, names) <= frame_max:
            return kept | {DROPPED_HEADER: names}
    raise MessageTooLarge(f"its headers take {size} bytes, and the connection's frame_max is {frame_max}")


def _size_in_table(name: str, value: object) -> int:
    return size_of({name: value}) - size_of({})


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
