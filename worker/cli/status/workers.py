"""What workers say of themselves, by their beats, to whoever asks for the status; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from worker.fleet.beat import PER_RATE, Amounts, Beat


@dataclass(frozen=True, slots=True)
class WorkerState:
    """One worker by what it said last, `seen_s` seconds ago.

    `paused` holds its reasons for taking no jobs, in the words of `worker.paused`, and is empty while it takes them.
    `sessions` is how many it has, and `share` how many it claims of the limit of all, None where it has no limit.
    """

    name: str
    seen_s: float
    paused: tuple[str, ...] = ()
    sessions: int = 0
    share: int | None = None


@dataclass(frozen=True, slots=True)
class FleetState:
    """The workers that run, and their limit: sessions, and exchanges per second, 0 where there is none."""

    workers: Sequence[WorkerState]
    sessions: int = 0
    rate: float = 0.0


def limit_in_words(sessions: int, rate: float) -> str:
    """Name the limit of all workers, `40 sessions and 100 exchanges/s`; "" where there is none."""
    limits = [f"{sessions:,} sessions"] * bool(sessions) + [f"{rate:g} exchanges/s"] * bool(rate)
    return " and ".join(limits)


def fleet_state(beats: Sequence[tuple[Beat, datetime | None]], now: datetime) -> FleetState:
    """Return what these newest beats of the workers, each with its time, come to."""
    limits = [beat.limit for beat, _ in beats]
    return FleetState(
        [_state(beat, at, now) for beat, at in beats],
        min((each.sessions for each in limits if each.sessions), default=0),
        min((each.rate for each in limits if each.rate), default=0) / PER_RATE,
    )


def _state(beat: Beat, at: datetime | None, now: datetime) -> WorkerState:
    seen = max(0.0, (now - at).total_seconds()) if at else 0.0
    limited = beat.limit != Amounts()
    return WorkerState(beat.name, seen, beat.paused, beat.held, beat.claim.sessions if limited else None)
