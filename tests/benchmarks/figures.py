"""What measures come to: samples, ratios of paired samples, and tables of them. No input or output."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypeAlias

_RESAMPLED = 4000
_SEED = 1
_TAILS = (0.025, 0.975)


@dataclass(frozen=True)
class Samples:
    """One figure, measured several times; `digits` are those shown behind the point."""

    values: tuple[float, ...]
    unit: str = ""
    digits: int = 0

    @property
    def median(self) -> float:
        return median(self.values)

    def __str__(self) -> str:
        """Return the median, and the least and largest where they differ."""
        shown = [f"{value:,.{self.digits}f}" for value in (self.median, min(self.values), max(self.values))]
        spread = f" ({shown[1]} to {shown[2]})" if shown[1] != shown[2] else ""
        return f"{shown[0]}{f' {self.unit}' if self.unit else ''}{spread}"


@dataclass(frozen=True)
class Ratio:
    """The median of paired ratios, and the interval that holds it with 95 % confidence."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        interval = f" [{self.low:.2f}, {self.high:.2f}]" if self.low != self.high else ""
        return f"{self.median:.2f}{interval}"


Cell: TypeAlias = Samples | Ratio | str


@dataclass(frozen=True)
class Table:
    """The result of a measure. The first cell of each row is its label, the first column theirs."""

    section: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""


def paired_ratio(values: Sequence[float], references: Sequence[float]) -> Ratio:
    """Compare two programs by rounds, of which each has one value of both.

    The interval is the bootstrap's: what the median is for the same rounds drawn again, with repeats. It is the same
    at each call.
    """
    ratios = [value / reference for value, reference in zip(values, references, strict=True)]
    draw = random.Random(_SEED).choices  # noqa: S311 - no secret
    medians = sorted(median(draw(ratios, k=len(ratios))) for _ in range(_RESAMPLED))
    low, high = (quantile(medians, share) for share in _TAILS)
    return Ratio(median(ratios), low, high)


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return the value below which this share of ordered values lies; between two values, what lies between them."""
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def percentile(values: Sequence[float], percent: float) -> float:
    return quantile(sorted(values), percent / 100)


def interleaved(names: Sequence[str], rounds: int) -> list[tuple[int, str]]:
    """Return the order in which programs take turns: A B C, then C B A, so that what drifts hits all alike."""
    turns = [names if number % 2 == 0 else names[::-1] for number in range(rounds)]
    return [(number, name) for number, turn in enumerate(turns) for name in turn]
