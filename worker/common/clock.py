"""Where time and random numbers come from: components are given a Clock, and tests bring their own."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial


@dataclass(slots=True, frozen=True)
class Clock:
    """The time of day (aware), a clock for intervals in seconds, a way to wait, and how pauses are drawn.

    The clock for intervals goes on while the machine sleeps, where it has such a clock: others do not wait for it.
    """

    now: Callable[[], datetime] = field(default=partial(datetime.now, UTC))
    monotonic: Callable[[], float] = field(
        default=partial(time.clock_gettime, getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
    )
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
    jitter: Callable[[float, float], float] = random.uniform


SYSTEM_CLOCK = Clock()
