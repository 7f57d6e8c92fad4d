"""The coverage-guided loop: an input that reaches new steps of the worker's code becomes one to go on from.

A step is a line and the line before it in the same function, as the interpreter's trace function tells; other code is
not traced. That needs no package, and works on every Python that the worker does.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import CodeType, FrameType
from typing import Any

import worker
from tests.fuzz.edits import mutated
from tests.fuzz.target import Target

WORKER = str(Path(worker.__file__).parent)
LONGEST = 10.0
"""Seconds for one input; a longer one counts as a failure, as a hang would."""

Step = tuple[CodeType, int, int]


class TooSlow(Exception):
    """An input took longer than LONGEST."""


@dataclass
class Found:
    """What a run came to: inputs that reached something new, beside the seeds, and the one that failed, if any."""

    executions: int = 0
    steps: int = 0
    kept: list[bytes] = field(default_factory=list)
    failure: Exception | None = None
    failing: bytes = b""
    slowest: float = 0.0


class Loop:
    """Looks for an input for which the target's property does not hold.

    Args:
        target: the property, and its words.
        seeds: inputs to begin with.
        random: draws the changes.
        folder: the code whose steps guide the search.
    """

    def __init__(self, target: Target, seeds: list[bytes], random: Random, folder: str = WORKER) -> None:
        self._target = target
        self._inputs = [*seeds] or [b""]
        self._random = random
        self._folder = folder
        self._seen: set[Step] = set()
        self._traced: dict[CodeType, bool] = {}
        self.found = Found()

    def run(self, goes_on: Callable[[Found], bool]) -> Found:
        """Try the seeds, then others for as long as `goes_on` says so, or until one fails."""
        found = self.found
        for data in tuple(self._inputs):
            if found.failure is None:
                self._try(data)
        while found.failure is None and goes_on(found):
            data = mutated(self._inputs, self._target.words, self._random)
            if self._try(data) and found.failure is None:
                self._inputs.append(data)
                found.kept.append(data)
        return found

    def _try(self, data: bytes) -> bool:
        """Run one input; return whether it reached something new."""
        found, before, started = self.found, len(self._seen), time.monotonic()
        try:
            with _limited(), self._tracing():
                self._target.check(data)
        except Exception as error:  # noqa: BLE001 - whatever it is, the property does not hold
            found.failure, found.failing = error, data
        found.executions += 1
        found.steps = len(self._seen)
        found.slowest = max(found.slowest, time.monotonic() - started)
        return found.steps > before

    @contextmanager
    def _tracing(self) -> Iterator[None]:
        # The tests' own coverage is measured by a trace function, too.
        usual = sys.gettrace()
        sys.settrace(self._on_call)
        try:
            yield
        finally:
            sys.settrace(usual)

    def _on_call(self, frame: FrameType, _event: str, _argument: object) -> Callable[..., Any] | None:
        code = frame.f_code
        if not self._traced.setdefault(code, code.co_filename.startswith(self._folder)):
            return None
        last, seen = 0, self._seen

        def on_line(frame: FrameType, event: str, _argument: object) -> Callable[..., Any]:
            nonlocal last
            if event == "line":
                seen.add((code, last, last := frame.f_lineno))
            return on_line

        return on_line


@contextmanager
def _limited() -> Iterator[None]:
    def end(*_: object) -> None:
        raise TooSlow(f"it takes longer than {LONGEST:g} s")

    usual = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, LONGEST)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, usual)
