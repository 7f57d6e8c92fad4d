"""Traces are asked for by OpenTelemetry's own variables."""

from __future__ import annotations

import pytest

from worker.settings import asks_for_traces

PLACE = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}


@pytest.mark.parametrize(
    ("environment", "asked"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "outcomes"}, False),
        (PLACE, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4318/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://127.0.0.1:4318/v1/metrics"}, False),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": " otlp "}, True),
        ({"OTEL_TRACES_EXPORTER": "", **PLACE}, True),
        ({"OTEL_TRACES_EXPORTER": "none", **PLACE}, False),
        ({"OTEL_TRACES_EXPORTER": "console"}, False),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "True"}, False),
        ({"OTEL_SDK_DISABLED": "false", **PLACE}, True),
    ],
)
def test_traces_are_asked_for_by_the_standard_variables(environment: dict[str, str], asked: bool) -> None:
    """By the exporter `otlp` or a place to send traces to; never where the SDK is disabled or the exporter another."""
    assert asks_for_traces(environment) is asked
