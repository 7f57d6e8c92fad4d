"""Reads logs until their end or until it is stopped, with a live view on a terminal or without."""

from __future__ import annotations

import select
import signal
import time
from types import FrameType
from typing import Self

from rich.console import Console
from rich.live import Live

from worker.cli.keyboard import keyboard as opened_keyboard
from worker.cli.keyboard import pressed
from worker.cli.top.screen import Screen
from worker.cli.top.sources import Feed

_REFRESH = 0.25
_LAST_READ_TIMEOUT = 1.0


class _Stop:
    """Catches SIGINT and SIGTERM while inside, and sets `requested`."""

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> Self:
        self._before = [(n, signal.signal(n, self._caught)) for n in (signal.SIGINT, signal.SIGTERM)]
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before:
            signal.signal(number, handler)

    def _caught(self, _number: int, _frame: FrameType | None) -> None:
        self.requested = True


def read_all(feed: Feed) -> None:
    """Read until the end, or until SIGINT or SIGTERM comes.

    Raises:
        OSError: a source can't be read.
    """
    with _Stop() as stop:
        while not (feed.ended or stop.requested):
            _read(feed, _REFRESH)
        _finish(feed)


def watch(feed: Feed, console: Console) -> None:
    """Show a live view until the end, until SIGINT or SIGTERM comes, or until `q` is pressed.

    Keys are read from the controlling terminal, since standard input may be the log.

    Raises:
        OSError: a source can't be read.
    """
    whole = False
    keys = ""
    with (
        _Stop() as stop,
        opened_keyboard() as keyboard,
        Live(console=console, screen=True, auto_refresh=False) as live,
    ):
        while not (feed.ended or stop.requested or "q" in keys):
            live.update(_screen(feed, console, whole=whole, keys=keyboard is not None), refresh=True)
            keys = _read(feed, _REFRESH, keyboard)
            whole ^= "w" in keys
        _finish(feed)


def _screen(feed: Feed, console: Console, *, whole: bool, keys: bool) -> Screen:
    hint = f"q quit, w {'newest' if whole else 'whole'}" if keys else "Ctrl-C quits"
    height = console.size.height
    now = time.monotonic()
    return Screen(feed.tally, feed.lines, feed.skipped, now=now, whole=whole, hint=hint, height=height)


def _read(feed: Feed, seconds: float, keyboard: int | None = None) -> str:
    """Read for so many seconds, or until keys are pressed; return the keys."""
    deadline = time.monotonic() + seconds
    wait = 0.0
    while not feed.ended and (left := deadline - time.monotonic()) > 0:
        watched = [*feed.streams, *([] if keyboard is None else [keyboard])]
        ready, _, _ = select.select(watched, [], [], min(wait, left))
        if keyboard in ready and keyboard is not None:
            return pressed(keyboard)
        wait = 0.0 if feed.read(ready, time.monotonic()) else left
    return ""


def _finish(feed: Feed) -> None:
    """Read what is there already, for a second at most."""
    deadline = time.monotonic() + _LAST_READ_TIMEOUT
    while not feed.ended and time.monotonic() < deadline:
        if not feed.read(select.select(feed.streams, [], [], 0)[0], time.monotonic()):
            break
    feed.close()
