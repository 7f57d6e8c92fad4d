"""A question to LCM and its answer, as they pass between the pipeline and the lookup."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from worker.errors import Expired, StaleDelivery


def _always() -> bool:
    return True


@dataclass(slots=True, frozen=True)
class Asked:
    """One exchange, answered or not: its session's place, which one it was on that session, and its seconds."""

    session: int
    exchange: int
    seconds: float


@dataclass(slots=True)
class Inquiry:
    """One delivery's question to LCM, and what it has cost so far.

    `is_wanted` turns false when nobody can use the answer any more. The lookup counts here this delivery's
    part: `exchanges` made for it, the seconds `spent` in exchanges and in the pauses between them, the last
    exchange and the last error.
    """

    account: str
    deadline: datetime | None = None
    is_wanted: Callable[[], bool] = _always
    exchanges: int = 0
    spent: float = 0.0
    asked: Asked | None = None
    last_error: str = ""

    def check(self, moment: datetime) -> None:
        """Raise StaleDelivery or Expired where going on at this moment would be in vain."""
        if not self.is_wanted():
            raise StaleDelivery("the delivery's channel is gone")
        if self.deadline is not None and moment >= self.deadline:
            # As words of LCM's, since the last error may hold some.
            last = f"last error: {self.last_error}" if self.last_error else ""
            raise Expired(f"past the job's deadline of {self.deadline.isoformat()}", said=last)


@dataclass(slots=True, frozen=True)
class Answer:
    """What LCM said, when it was asked and when it answered, and on which exchange of which session.

    `items` are pairs of an outcome's id, never blank, and its description, in LCM's order and spelling.
    `seconds` is how long the exchange took. `shared` where another job's exchange gave the answer.
    """

    items: list[tuple[str, str]]
    asked_at: datetime
    answered_at: datetime
    seconds: float
    session: int
    exchange: int
    shared: bool = False
