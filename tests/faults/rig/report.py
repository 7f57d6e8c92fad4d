"""The figures of each row of the fault matrix, collected into one JSON file."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

COUNTED = ("jobs", "results", "repeats", "dead", "lost", "wrong")


class NothingInjected(AssertionError):
    """A row went through without any fault, so it proves nothing."""


@dataclass(slots=True)
class Row:
    """One test of one row. `random` draws from the run's seed, the same for the same test whatever else runs."""

    row: str
    test: str
    seed: int
    random: random.Random
    faults: Counter[str] = field(default_factory=Counter)
    counted: Counter[str] = field(default_factory=Counter)

    def inject(self, kind: str, number: int = 1) -> None:
        """Count faults that the test itself brought about, such as a process killed."""
        self.faults[kind] += number

    def count_faults(self, faults: Mapping[str, int]) -> None:
        """Add faults by kind, such as a proxy's `injected` or a tally of the simulator's record."""
        self.faults.update({kind: number for kind, number in faults.items() if number})

    def count(self, counts: Mapping[str, int]) -> None:
        """Add what a ledger counted."""
        self.counted.update(counts)


class Report:
    """Writes `path` anew after every row, so that a run which is cut short leaves what it found.

    Without a path nothing is written. The same seed gives every row the same random numbers.
    """

    def __init__(self, path: Path | None, seed: int) -> None:
        self.path = path
        self.seed = seed
        self.records: list[dict[str, Any]] = []

    @contextmanager
    def row(self, row: str, test: str = "") -> Iterator[Row]:
        """Run one test of a row of the matrix, and put it on record whether it passes or not.

        Raises:
            NothingInjected: it passed, but no fault was counted.
        """
        drawn = random.Random(f"{self.seed} {row} {test}")  # noqa: S311 - no secret: to be drawn again
        entry = Row(row, test, self.seed, drawn)
        began = time.monotonic()
        passed = False
        try:
            yield entry
            if not entry.faults.total():
                raise NothingInjected(f"row {row} {test}: no fault was injected (seed {self.seed})")
            passed = True
        finally:
            self._add(entry, time.monotonic() - began, passed=passed)

    def _add(self, entry: Row, seconds: float, *, passed: bool) -> None:
        self.records.append(
            {
                "row": entry.row,
                "test": entry.test,
                "passed": passed,
                "seed": entry.seed,
                "faults_injected": entry.faults.total(),
                "faults": dict(entry.faults),
                **{name: entry.counted[name] for name in COUNTED},
                "seconds": round(seconds, 1),
            }
        )
        if self.path is not None:
            encoded = msgspec.json.format(msgspec.json.encode(self.records), indent=2)
            unfinished = self.path.with_name(self.path.name + ".new")
            unfinished.write_bytes(encoded + b"\n")
            unfinished.replace(self.path)
