"""The W3C trace context of a message: its headers `traceparent` and `tracestate`, and the trace that they belong to."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

TRACE_HEADERS = ("traceparent", "tracestate")

# Of version 00 nothing may follow; later versions may append fields. Ids of zeros are invalid, as is the version ff.
_TRACEPARENT = re.compile(
    r"(?!ff|00.{54})[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?", re.DOTALL
)


def trace_of(headers: Mapping[str, Any]) -> dict[str, str]:
    """Return those of a message's headers that are its trace context, unread, where they are text."""
    return {name: value for name in TRACE_HEADERS if isinstance(value := headers.get(name), str)}


def trace_id_of(trace: Mapping[str, str]) -> str:
    """Return the 32 hexadecimal digits that name the trace, or "" where `traceparent` is missing or invalid."""
    traceparent = trace.get("traceparent", "")
    found = _TRACEPARENT.fullmatch(traceparent) if traceparent else None
    return found[1] if found else ""
