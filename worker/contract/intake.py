"""The intake of jobs from the broker, as the outage prober and the guard see it, which pause it."""

from __future__ import annotations

from enum import Enum
from typing import Protocol


class PauseReason(Enum):
    """Why no jobs are taken; each can hold by itself or beside others."""

    OUTAGE = "outage"
    GUARD = "guard"
    SUSPECT = "suspect"
    COPIES = "copies_refused"
    NO_SHARE = "no_share"


class Intake(Protocol):
    """Takes jobs, unless it is paused for at least one reason."""

    def pause(self, reason: PauseReason) -> None:
        """Take no more jobs until this reason, too, is resumed."""

    def resume(self, reason: PauseReason) -> None:
        """Drop a reason for pausing."""

    async def take_one(self, within: float) -> bool:
        """Take one job in spite of a pause and see it to its end; return whether one came within `within` seconds."""
