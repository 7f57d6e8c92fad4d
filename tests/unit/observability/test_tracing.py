"""Without traces nothing stands around the stations of a job, and OpenTelemetry is not loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest

from tests.support.log import RecordingLog
from worker.app import _tracer_for
from worker.contract.disposition import Disposition, Ending
from worker.contract.errors import SettingsError
from worker.contract.message import Delivery
from worker.observability.tracing import Untraced
from worker.settings import Settings

TOP = Path(__file__).parents[3]
WANTED = "OTEL_TRACES_EXPORTER"
LOADED = """
import sys
from worker.app import App
from worker.settings import Settings
import worker.cli.run

from tests.support.log import RecordingLog

App(Settings(), RecordingLog())
print([name for name in sys.modules if name.partition(".")[0] in ("opentelemetry", "requests", "google")])
"""


async def handle(_delivery: Delivery) -> Disposition:
    return Disposition(Ending.SUCCEEDED)


async def test_the_stations_of_an_untraced_job_are_themselves() -> None:
    """No call is added to the way of a job: what comes out is the very object that was given."""
    tracer, exchange, outbox = Untraced(), Mock(), Mock()
    assert tracer.handling(handle) is handle
    assert tracer.exchanging(exchange) is exchange
    assert tracer.publishing(outbox) is outbox
    await tracer.close()


def test_opentelemetry_is_loaded_only_where_it_is_asked_for() -> None:
    """A worker without traces loads nothing of the extra, installed or not."""
    program = [sys.executable, "-c", LOADED]
    assert subprocess.check_output(program, text=True, cwd=TOP).strip() == "[]"  # noqa: S603 - our own text


def test_no_traces_are_asked_for_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without OpenTelemetry's variables nothing is traced, and nothing is said of it."""
    for name in (WANTED, "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    log = RecordingLog()
    assert isinstance(_tracer_for(Settings(), log), Untraced)
    assert log.lines == []


def test_a_missing_extra_is_told_and_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Traces that are asked for without the extra are left out, with a warning that names what to install."""
    monkeypatch.setenv(WANTED, "otlp")
    monkeypatch.delitem(sys.modules, "worker.observability.spans", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.context", None)
    log = RecordingLog()
    assert isinstance(_tracer_for(Settings(), log), Untraced)
    [line] = log.of("tracing.unavailable")
    assert "lcm-outcome-worker[otel]" in line["remedy"]


@pytest.mark.parametrize("variable", ["OTEL_BSP_MAX_QUEUE_SIZE", "OTEL_ATTRIBUTE_COUNT_LIMIT"])
def test_a_variable_that_cannot_be_used_is_a_setting_s_mistake(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """What OpenTelemetry refuses at the start ends the worker as any other wrong setting does."""
    monkeypatch.setenv(WANTED, "otlp")
    monkeypatch.setenv(variable, "-1")
    with pytest.raises(SettingsError, match="OTEL_"):
        _tracer_for(Settings(), RecordingLog())
