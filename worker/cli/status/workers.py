"""What workers say of themselves to whoever asks for the status: nothing yet, so that each is unknown; pure."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WorkerState:
    """One worker by what it said last, `seen_s` seconds ago.

    `paused` holds its reasons for taking no jobs, in the words of `worker.paused`, and is empty while it takes them.
    """

    name: str
    seen_s: float
    paused: tuple[str, ...] = ()


Workers = Callable[[], Awaitable[Sequence[WorkerState] | None]]
"""Returns the workers that run, or None where that is not known."""


async def untold() -> None:
    """Return that nobody tells: a worker that is paused looks as one that is not there."""
