"""Whether traces are asked for, by OpenTelemetry's own variables; what else they say, its SDK reads by itself."""

import os
from collections.abc import Mapping

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


def asks_for_traces(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether `OTEL_TRACES_EXPORTER` is `otlp`, or is not set and a place to send traces to is.

    `OTEL_SDK_DISABLED` wins over both. Other exporters are none of this worker's.
    """
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    if exporter := environment.get("OTEL_TRACES_EXPORTER", "").strip():
        return exporter == "otlp"
    return any(environment.get(name) for name in _ENDPOINTS)
