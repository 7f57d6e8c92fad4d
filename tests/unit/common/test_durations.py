"""Lengths of time, read and written."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.common.durations import format_duration, parse_duration


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("250ms", 0.25),
        ("10s", 10.0),
        ("2m", 120.0),
        ("1.5s", 1.5),
        ("0.1m", 6.0),
        ("2h", 7200.0),
        ("1.5d", 129_600.0),
        (" 30 s ", 30.0),
        ("7", 7.0),
        ("0.5", 0.5),
        (".5s", 0.5),
        (0, 0.0),
        (3, 3.0),
        (0.2, 0.2),
        ("0s", 0.0),
        (-0.0, 0.0),
    ],
)
def test_reads_what_people_write(written: object, seconds: float) -> None:
    """Units, plain numbers and numbers as text all end as seconds."""
    found = parse_duration(written)
    assert isinstance(found, float)
    assert found == seconds
    assert math.copysign(1, found) == 1


@pytest.mark.parametrize(
    "written",
    ["", "s", "10w", "10 sec", "1e3", "1_000", "٣s", "10S", "1.s", "2m30s", "10s;", True, None, [], "9" * 50],
)
def test_refuses_what_is_no_duration(written: object) -> None:
    """Anything else is refused with an example of how to write it."""
    with pytest.raises(ValueError, match='such as "250ms"'):
        parse_duration(written)


@pytest.mark.parametrize("written", [math.nan, math.inf, 10**400])
def test_refuses_endless_durations(written: float) -> None:
    """A duration that no clock reaches is refused, and never raises anything but ValueError."""
    with pytest.raises(ValueError, match="finite"):
        parse_duration(written)


@pytest.mark.parametrize("written", [-1, -0.001, "-1s", "-250ms"])
def test_refuses_negative_durations(written: object) -> None:
    """A negative duration is told so, not that it is unreadable."""
    with pytest.raises(ValueError, match="negative"):
        parse_duration(written)


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (120, "2m"),
        (90, "90s"),
        (0.25, "250ms"),
        (0, "0s"),
        (60, "1m"),
        (61, "61s"),
        (1.5, "1500ms"),
        (3600, "60m"),
        (0.1 + 0.2, "300ms"),
        (0.0005, "0.5ms"),
        (1e-12, "0s"),
    ],
)
def test_writes_the_largest_unit_that_divides_evenly(seconds: float, written: str) -> None:
    """One duration has one form, since queues are named by it."""
    assert format_duration(seconds) == written


@pytest.mark.parametrize("seconds", [-1.0, math.nan, math.inf])
def test_does_not_write_what_is_no_duration(seconds: float) -> None:
    """A negative or endless number is an error, not a queue's name."""
    with pytest.raises(ValueError, match="no duration"):
        format_duration(seconds)


@given(st.integers(min_value=0, max_value=2**32 - 1))
def test_milliseconds_survive_writing_and_reading(milliseconds: int) -> None:
    """Any whole number of milliseconds that AMQP can carry is read back exactly."""
    seconds = milliseconds / 1000
    assert parse_duration(format_duration(seconds)) == seconds


@given(st.text(max_size=12))
def test_any_text_is_a_duration_or_a_value_error(text: str) -> None:
    """No text makes the parser fail in another way, and what it accepts is finite and not negative."""
    try:
        seconds = parse_duration(text)
    except ValueError:
        return
    assert 0 <= seconds < math.inf
