"""What was published and what came back, in numbers and lines. Pure: `now` comes in."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence

from worker.submitting.jobs import Asked, digest
from worker.submitting.results import Result
from worker.submitting.sources import Source

_SHOWN_RESULTS = 20


class Published:
    """Jobs on their way: those handed out and not confirmed yet, in the order of their lines."""

    def __init__(self) -> None:
        self.confirmed = 0
        self._open: dict[tuple[int, int], None] = {}
        self._last: tuple[int, int] | None = None
        self._first: tuple[int, int] | None = None

    @property
    def in_doubt(self) -> int:
        """How many were handed out and may or may not have arrived."""
        return len(self._open)

    def handed_out(self, job: Asked) -> None:
        self._last = (job.source, job.line)
        self._first = self._first or self._last
        self._open[self._last] = None

    def arrived(self, job: Asked) -> None:
        del self._open[job.source, job.line]
        self.confirmed += 1

    def where(self, sources: Sequence[Source]) -> str:
        """Say which lines are published for sure, and with what arguments to go on."""
        if self._last is None or self._first is None:
            return "nothing was published"
        source, line = next(iter(self._open), (self._last[0], self._last[1] + 1))
        first = self._first[1] if self._first[0] == source else 1
        told = [f"all of {done.name}" for done in sources[self._first[0] : source]]
        if line > first:
            told.append(f"lines {first:,}-{line - 1:,} of {sources[source].name}")
        rest = " ".join(shlex.quote(one.argument) for one in sources[source:])
        published = f"published {', '.join(told)}" if told else "nothing is published for sure"
        return f"{published}; continue with --from-line {line} {rest}"


class Collected:
    """Results that came for the jobs of this run; what came before, or is for others, is told apart."""

    def __init__(self) -> None:
        self.succeeded = 0
        self.failed: Counter[str] = Counter()
        self.slowest: tuple[float, str] = (0.0, "")
        self.first_results: list[Result] = []
        self._awaited: set[bytes] = set()

    @property
    def missing(self) -> int:
        return len(self._awaited)

    @property
    def count(self) -> int:
        return self.succeeded + self.failed.total()

    def awaits(self, job_id: str) -> None:
        """Expect the result of a job, from before it is published."""
        self._awaited.add(digest(job_id))

    def takes(self, result: Result) -> bool:
        """Count a result; false where nobody awaits it, or does so no more."""
        name = digest(result.job_id)
        if name not in self._awaited:
            return False
        self._awaited.remove(name)
        if result.error is None:
            self.succeeded += 1
        else:
            self.failed[result.error.code] += 1
        self.slowest = max(self.slowest, (result.duration_ms, result.job_id))
        if len(self.first_results) < _SHOWN_RESULTS:
            self.first_results.append(result)
        return True
