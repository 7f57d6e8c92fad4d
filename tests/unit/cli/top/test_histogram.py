"""Percentiles in bounded memory, against sorted lists."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from worker.cli.top.histogram import RELATIVE_ERROR, Histogram

VALUES = st.lists(st.floats(0.01, 1e15), min_size=1, max_size=600)


def histogram_of(*lists: list[float]) -> Histogram:
    histogram = Histogram()
    for values in lists:
        for value in values:
            histogram.add(value)
    return histogram


def seen(histogram: Histogram) -> tuple[object, ...]:
    shares = [histogram.percentile(share / 20) for share in range(21)]
    return (histogram.count, histogram.maximum, *shares)


@given(VALUES, st.floats(0.001, 1))
def test_a_percentile_is_within_the_error(values: list[float], share: float) -> None:
    """Any percentile is within five percent of the value of that rank in the sorted list."""
    true = sorted(values)[max(1, math.ceil(share * len(values))) - 1]
    assert abs(histogram_of(values).percentile(share) - true) <= RELATIVE_ERROR * true


@given(VALUES)
def test_the_maximum_is_exact_and_no_percentile_exceeds_it(values: list[float]) -> None:
    """The maximum is one of the values, and the percentiles rise up to it."""
    histogram = histogram_of(values)
    shares = [histogram.percentile(share / 20) for share in range(21)]
    assert histogram.maximum == max(values)
    assert shares == sorted(shares)
    assert shares[-1] <= histogram.maximum


@given(VALUES, VALUES, VALUES)
def test_merging_is_associative(one: list[float], two: list[float], three: list[float]) -> None:
    """Merged in any order, histograms are the one of all values."""
    left, right, rest = histogram_of(one), histogram_of(one), histogram_of(two)
    left.merge(histogram_of(two))
    left.merge(histogram_of(three))
    rest.merge(histogram_of(three))
    right.merge(rest)
    assert seen(left) == seen(right) == seen(histogram_of(one, two, three))


def test_nothing_and_next_to_nothing_are_zero() -> None:
    """Without values everything is 0, and so is what is below a hundredth."""
    histogram = Histogram()
    assert seen(histogram) == (0, 0.0, *[0.0] * 21)
    for value in (0.0, -3.0, 0.009):
        histogram.add(value)
    assert histogram.percentile(0.99) == 0.0
    assert histogram.count == 3


def test_memory_is_bounded_whatever_comes() -> None:
    """Values over the whole range of numbers make no more than 413 buckets."""
    histogram = histogram_of([10 ** (exponent / 50) for exponent in range(-16000, 15400)])
    assert histogram.percentile(1.0) <= histogram.maximum
    assert len(histogram._buckets) <= 413
    assert len(histogram._new) < 256
