"""Reads until the end or until asked to stop, and shows on a terminal what it comes to meanwhile."""

from __future__ import annotations

import os
import select
import signal
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Self

from rich.console import Console
from rich.live import Live

from worker.top.screen import Screen
from worker.top.sources import Feed

_REFRESH = 0.25
_LAST_LOOK = 1.0


class _Stop:
    """Whether SIGINT or SIGTERM came, which are caught while it is entered."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> Self:
        self._before = [(n, signal.signal(n, self._caught)) for n in (signal.SIGINT, signal.SIGTERM)]
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before:
            signal.signal(number, handler)

    def _caught(self, _number: int, _frame: FrameType | None) -> None:
        self.asked = True


def read_all(feed: Feed) -> None:
    """Read until the end, or until SIGINT or SIGTERM.

    Raises:
        OSError: a source can't be read.
    """
    with _Stop() as stop:
        while not (feed.ended or stop.asked):
            _take(feed, _REFRESH)
        _finish(feed)


def watch(feed: Feed, console: Console) -> None:
    """Show a live view until the end, until SIGINT or SIGTERM, or until `q` is pressed.

    Keys come from the terminal itself, since the log may take the place of standard input.

    Raises:
        OSError: a source can't be read.
    """
    whole = False
    keys = ""
    with (
        _Stop() as stop,
        _keyboard() as keyboard,
        Live(console=console, screen=True, auto_refresh=False) as live,
    ):
        while not (feed.ended or stop.asked or "q" in keys):
            live.update(_screen(feed, console, whole=whole, keys=keyboard is not None), refresh=True)
            keys = _take(feed, _REFRESH, keyboard)
            whole ^= "w" in keys
        _finish(feed)


def _screen(feed: Feed, console: Console, *, whole: bool, keys: bool) -> Screen:
    hint = f"q quit, w {'newest' if whole else 'whole'}" if keys else "Ctrl-C quits"
    height = console.size.height
    return Screen(feed.tally, feed.lines, feed.skipped, live=True, whole=whole, hint=hint, height=height)


def _take(feed: Feed, seconds: float, keyboard: int | None = None) -> str:
    """Take what comes for so long, or until keys are pressed, which are returned."""
    deadline = time.monotonic() + seconds
    wait = 0.0
    while not feed.ended and (left := deadline - time.monotonic()) > 0:
        watched = [*feed.streams, *([] if keyboard is None else [keyboard])]
        ready, _, _ = select.select(watched, [], [], min(wait, left))
        if keyboard in ready and keyboard is not None:
            return _pressed(keyboard)
        wait = 0.0 if feed.take(ready) else left
    return ""


def _pressed(keyboard: int) -> str:
    try:
        return os.read(keyboard, 64).decode("latin-1").lower() or "q"
    except OSError:  # the terminal is gone
        return "q"


def _finish(feed: Feed) -> None:
    """Take what is there already, but don't go on for long: whoever asked to stop is waiting."""
    deadline = time.monotonic() + _LAST_LOOK
    while not feed.ended and time.monotonic() < deadline:
        if not feed.take(select.select(feed.streams, [], [], 0)[0]):
            break
    feed.close()


@contextmanager
def _keyboard() -> Iterator[int | None]:
    """Give a descriptor that single keys can be read from, None where there is no terminal."""
    try:
        descriptor = os.open("/dev/tty", os.O_RDONLY)
    except OSError:
        yield None
        return
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield descriptor
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
        os.close(descriptor)
