"""Percentiles of any number of values in bounded memory. Pure."""

from __future__ import annotations

import math
from collections import Counter

_GROWTH = 1.1
_LOG_GROWTH = math.log(_GROWTH)
_LEAST = 0.01
_LOG_LEAST = math.log(_LEAST)
_MOST = 1e15
# The value between the bounds of a bucket whose relative error is the same at both: half the growth, about 4.8 %.
_MIDDLE = 2 / (1 + _GROWTH)
_ZERO = -1
_BATCH = 256

RELATIVE_ERROR = 0.05
"""How far a percentile may be off, as a share of the true one, for values from 0.01 to 1e15."""


class Histogram:
    """Counts values in at most 413 buckets, each a tenth wider than the one before.

    Values below 0.01 count as 0, those above 1e15 as 1e15. The maximum is exact.
    """

    __slots__ = ("_buckets", "_count", "_maximum", "_new")

    def __init__(self) -> None:
        self._count = 0
        self._maximum = 0.0
        self._buckets: dict[int, int] = {}
        # Values are put into buckets a few hundred at a time, equal ones together, which costs a third.
        self._new: list[float] = []

    def add(self, value: float) -> None:
        """Count a value, which must not be NaN."""
        self._new.append(value)
        if len(self._new) >= _BATCH:
            self._fill_buckets()

    @property
    def count(self) -> int:
        return self._count + len(self._new)

    @property
    def maximum(self) -> float:
        """The largest value; 0 where there is none, or all are negative."""
        return max(self._maximum, max(self._new, default=0.0))

    def merge(self, other: Histogram) -> None:
        """Add all values of another histogram."""
        other._fill_buckets()
        self._count += other._count
        self._maximum = max(self._maximum, other._maximum)
        for bucket, count in other._buckets.items():
            self._buckets[bucket] = self._buckets.get(bucket, 0) + count

    def percentile(self, share: float) -> float:
        """Return about the smallest value that a `share` (0 to 1) of all values don't exceed; 0 without values."""
        self._fill_buckets()
        rank = max(1, math.ceil(share * self._count))
        seen = 0
        for bucket in sorted(self._buckets):
            seen += self._buckets[bucket]
            if seen >= rank:
                return min(_value_of(bucket), self._maximum)
        return 0.0

    def _fill_buckets(self) -> None:
        self._maximum = self.maximum
        self._count = self.count
        for value, count in Counter(self._new).items():
            bucket = _bucket_of(value)
            self._buckets[bucket] = self._buckets.get(bucket, 0) + count
        self._new.clear()


def _bucket_of(value: float) -> int:
    if value < _LEAST:
        return _ZERO
    return math.ceil((math.log(min(value, _MOST)) - _LOG_LEAST) / _LOG_GROWTH)


def _value_of(bucket: int) -> float:
    return 0.0 if bucket == _ZERO else _LEAST * _GROWTH**bucket * _MIDDLE
