"""Durations as people write them: `250ms`, `10s`, `2m`, `6h`, `1d`. Pure."""

from __future__ import annotations

import math
import re
from decimal import Decimal

_WRITTEN = re.compile(r"([0-9]+(?:\.[0-9]+)?|\.[0-9]+) *(ms|s|m|h|d)?")
_SECONDS = {
    "ms": Decimal("0.001"),
    "s": Decimal(1),
    "m": Decimal(60),
    "h": Decimal(3600),
    "d": Decimal(86400),
}
_LONGEST_TEXT = 40


def parse_duration(value: object) -> float:
    """Return the seconds that `value` stands for: a number, or a text such as `250ms`, `10s`, `2m`, `1.5`.

    Raises:
        ValueError: it is no duration, or is negative or endless; the text says how to write one.
    """
    seconds = _seconds(value)
    if seconds is None:
        raise ValueError('must be a duration such as "250ms", "10s", "2m" or "6h", or a number of seconds')
    if not math.isfinite(seconds):
        raise ValueError("must be a finite number of seconds")
    if seconds < 0:
        raise ValueError("must not be negative")
    return seconds + 0.0  # -0.0 becomes 0.0


def _seconds(value: object) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            return math.inf
    if isinstance(value, str) and len(value) <= _LONGEST_TEXT:
        negative = value.strip().startswith("-")
        if found := _WRITTEN.fullmatch(value.strip().removeprefix("-")):
            seconds = float(Decimal(found[1]) * _SECONDS[found[2] or "s"])
            return -seconds if negative else seconds
    return None


def format_duration(seconds: float) -> str:
    """Write a duration in its one canonical form: the largest unit up to minutes that divides it evenly.

    Queues are named by it, so an hour is `60m` for ever.

    `parse_duration` reads it back. Two durations have the same form exactly when they are the same to the
    nanosecond.

    Raises:
        ValueError: it is negative or not finite.
    """
    if not math.isfinite(seconds) or seconds < 0:
        raise ValueError(f"{seconds} is no duration: it must be finite and not negative")
    # Of what a float can't hold exactly (0.1 + 0.2), only what a clock could tell apart counts.
    nanoseconds = round(Decimal(seconds) * 10**9)
    for unit, size in (("m", 60 * 10**9), ("s", 10**9), ("ms", 10**6)):
        if nanoseconds and nanoseconds % size == 0:
            return f"{nanoseconds // size}{unit}"
    if not nanoseconds:
        return "0s"
    milliseconds, rest = divmod(nanoseconds, 10**6)
    return f"{milliseconds}.{rest:06}".rstrip("0") + "ms"
