"""Whether traces are asked for, by OpenTelemetry's own variables, and where credentials go with them.

What else they say, its SDK reads by itself.
"""

import os
from collections.abc import Mapping
from typing import NamedTuple

# Of each two, the first wins.
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_HEADERS = ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS")


class Collector(NamedTuple):
    """Whom traces are sent to, by the names of the variables that say so; `headers` is empty where there are none."""

    endpoint: str
    headers: str
    url: str


def asks_for_traces(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether `OTEL_TRACES_EXPORTER` is `otlp`, or is not set and a place to send traces to is.

    `OTEL_SDK_DISABLED` wins over both. Other exporters are none of this worker's.
    """
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    if exporter := environment.get("OTEL_TRACES_EXPORTER", "").strip():
        return exporter == "otlp"
    return any(environment.get(name) for name in _ENDPOINTS)


def collector_of(environment: Mapping[str, str]) -> Collector | None:
    """Return whom traces are sent to; None where none are, or they stay on this host for want of a variable."""
    endpoint, headers = (
        next((name for name in names if environment.get(name)), "") for names in (_ENDPOINTS, _HEADERS)
    )
    if not endpoint or not asks_for_traces(environment):
        return None
    return Collector(endpoint, headers, environment[endpoint].strip())
