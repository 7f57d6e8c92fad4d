"""Counts what was published and what was collected. Pure."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence

from worker.cli.submit.jobs import InputJob, digest
from worker.cli.submit.results import Result
from worker.cli.submit.sources import Source

_SHOWN_RESULTS = 20
_LONGEST = 366 * 86_400_000.0  # milliseconds; no job takes longer, but anybody may publish any number


class Published:
    """Jobs sent to the broker: how many are confirmed, and which are not yet, in the order of their lines."""

    def __init__(self) -> None:
        self.confirmed = 0
        self._unconfirmed: dict[tuple[int, int], None] = {}
        self._first: tuple[int, int] | None = None
        self._last: tuple[int, int] | None = None

    @property
    def in_doubt(self) -> int:
        """How many were sent and are not confirmed: the broker may have them or not."""
        return len(self._unconfirmed)

    def send(self, job: InputJob) -> None:
        """Count a job that is about to be sent."""
        self._last = (job.source, job.line)
        self._first = self._first or self._last
        self._unconfirmed[self._last] = None

    def confirm(self, job: InputJob) -> None:
        """Count a job that the broker has confirmed."""
        del self._unconfirmed[job.source, job.line]
        self.confirmed += 1

    def continuation(self, sources: Sequence[Source]) -> str:
        """Return a text with the lines that are published for certain, and the arguments to go on with."""
        if self._last is None or self._first is None:
            return "nothing was published"
        source, line = next(iter(self._unconfirmed), (self._last[0], self._last[1] + 1))
        first = self._first[1] if self._first[0] == source else 1
        parts = [f"all of {done.name}" for done in sources[self._first[0] : source]]
        if line > first:
            parts.append(f"lines {first:,}-{line - 1:,} of {sources[source].name}")
        rest = " ".join(shlex.quote(one.argument) for one in sources[source:])
        published = f"published {', '.join(parts)}" if parts else "nothing is published for sure"
        return f"{published}; continue with --from-line {line} {rest}"


class Collected:
    """Results of expected jobs, each counted once; those of other jobs are not counted.

    `misnamed` counts results with the id of an expected job and another account, or none: they are not its result.
    `slowest` has the duration of a job, and its id; durations that no job can have taken are passed over.
    """

    def __init__(self) -> None:
        self.succeeded = 0
        self.misnamed = 0
        self.failed: Counter[str] = Counter()
        self.slowest: tuple[float, str] = (0.0, "")
        self.first_results: list[Result] = []
        self._expected: dict[bytes, bytes] = {}  # digests: of a job's id, and of its account

    @property
    def missing(self) -> int:
        """How many expected results have not come."""
        return len(self._expected)

    @property
    def count(self) -> int:
        """How many results have come."""
        return self.succeeded + self.failed.total()

    def expect(self, job_id: str, account_number: str) -> None:
        """Expect the result of a job; to be called before the job is published."""
        self._expected[digest(job_id)] = digest(account_number)

    def accept(self, result: Result) -> bool:
        """Count a result; False where it is not expected, came before, or names another account than the job."""
        name = digest(result.job_id)
        if (expected := self._expected.get(name)) is None:
            return False
        if result.account_number is None or digest(result.account_number) != expected:
            self.misnamed += 1
            return False
        del self._expected[name]
        if result.error is None:
            self.succeeded += 1
        else:
            self.failed[result.error.code] += 1
        if result.duration_ms <= _LONGEST:
            self.slowest = max(self.slowest, (result.duration_ms, result.job_id))
        if len(self.first_results) < _SHOWN_RESULTS:
            self.first_results.append(result)
        return True
