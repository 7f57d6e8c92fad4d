"""Which panels get which lines of a screen that is too low for all."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from worker.cli.top.layout import Panel, shares

SIZES = st.lists(st.tuples(st.integers(1, 5), st.integers(0, 20)), max_size=8)


def panels(*sizes: tuple[int, int]) -> list[Panel]:
    """Panels by their least lines and those beyond, ranked as they come."""
    return [Panel(rank, least, least + more, str) for rank, (least, more) in enumerate(sizes)]


@given(SIZES, st.integers(0, 60))
def test_no_more_is_given_than_there_is(sizes: list[tuple[int, int]], height: int) -> None:
    """The shares fit the height, each is nothing or from the least to the most, and none is left that one could use."""
    made = panels(*sizes)
    given_lines = shares(made, height)
    assert sum(given_lines) <= height
    assert all(not n or panel.least <= n <= panel.most for panel, n in zip(made, given_lines, strict=True))
    if sum(given_lines) < height:
        assert all(n in {0, panel.most} for panel, n in zip(made, given_lines, strict=True))


def test_the_first_in_rank_come_first() -> None:
    """With too few lines, the later in rank are left out, wherever they stand, and what is over is shared evenly."""
    made = [Panel(2, 2, 9, str), Panel(0, 2, 9, str), Panel(1, 2, 9, str)]
    assert shares(made, 5) == [0, 3, 2]
    assert shares(made, 12) == [4, 4, 4]
    assert shares(made, None) == [9, 9, 9]
