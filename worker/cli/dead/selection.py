"""Which dead letters an operator means, and how they are grouped. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from worker.broker.admin.dead_letter import DeadLetter

OTHER_PATTERNS = "(other reasons)"
MAX_GROUPS = 1000


@dataclass(frozen=True, slots=True)
class Selection:
    """Conditions on dead letters; an empty selection matches all. Ages are seconds before `now`, which is aware.

    A dead letter of unknown age is neither older nor newer than anything.
    """

    now: datetime
    codes: frozenset[str] = frozenset()
    job_ids: frozenset[str] = frozenset()
    older_than: float | None = None
    newer_than: float | None = None
    limit: int | None = None

    @property
    def has_conditions(self) -> bool:
        """Whether there is a condition besides `limit`."""
        return bool(self.codes or self.job_ids) or not (self.older_than is None and self.newer_than is None)

    def matches(self, letter: DeadLetter) -> bool:
        """Whether a dead letter meets all conditions; the caller counts up to `limit`."""
        if self.codes and letter.code not in self.codes:
            return False
        if self.job_ids and letter.job.job_id not in self.job_ids:
            return False
        if self.older_than is None and self.newer_than is None:
            return True
        if letter.failed_at is None:
            return False
        age = (self.now - letter.failed_at).total_seconds()
        return (self.older_than is None or age > self.older_than) and (
            self.newer_than is None or age < self.newer_than
        )


@dataclass(slots=True)
class Group:
    """Dead letters of one code, one producer (its route apart) and one pattern of the reason."""

    code: str
    user_id: str
    app_id: str
    pattern: str
    count: int = 0
    oldest: datetime | None = None
    newest: datetime | None = None

    def add(self, failed_at: datetime | None) -> None:
        """Count one more dead letter."""
        self.count += 1
        if failed_at is not None:
            self.oldest = min(self.oldest or failed_at, failed_at)
            self.newest = max(self.newest or failed_at, failed_at)


class Tally:
    """Counts dead letters by code, producer and pattern. Beyond `MAX_GROUPS`, one more per code takes the rest."""

    def __init__(self) -> None:
        self._groups: dict[tuple[str, str, str, str], Group] = {}

    def add(self, letter: DeadLetter) -> None:
        """Count a dead letter."""
        producer = letter.job.producer
        key = (letter.code, producer.user_id, producer.app_id, letter.pattern)
        if key not in self._groups and len(self._groups) >= MAX_GROUPS:
            known = any(code == letter.code for code, *_ in self._groups)
            key = (letter.code if known else "", "", "", OTHER_PATTERNS)
        self._groups.setdefault(key, Group(*key)).add(letter.failed_at)

    @property
    def groups(self) -> list[Group]:
        """The groups, the largest first, then by code, producer and pattern."""
        return [
            self._groups[key] for key in sorted(self._groups, key=lambda key: (-self._groups[key].count, key))
        ]
