"""The signals that ask a process to stop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_STOP = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@contextmanager
def on_stop_signal(stop: Callable[[], object]) -> Iterator[None]:
    """Have the running loop call `stop` for each SIGTERM, SIGINT and SIGHUP inside; `nohup` is respected."""
    loop = asyncio.get_running_loop()
    numbers = [number for number in _STOP if signal.getsignal(number) is not signal.SIG_IGN]
    for number in numbers:
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
