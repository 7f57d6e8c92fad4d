"""Divides the lines of a screen among panels. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Panel:
    """A part of the screen, which can be drawn in any number of lines from `least` to `most`.

    Where there are too few lines, panels of a low `rank` are served first.
    """

    rank: int
    least: int
    most: int
    draw: Callable[[int], Any]


def shares(panels: Sequence[Panel], height: int | None) -> list[int]:
    """Return the number of lines for each panel, 0 for one that is left out.

    In the order of their ranks, panels get their least; the remaining lines are dealt out one at a time. Without a
    height, each panel gets its most.
    """
    if height is None:
        return [panel.most for panel in panels]
    given = [0] * len(panels)
    by_rank = sorted(range(len(panels)), key=lambda index: panels[index].rank)
    for index in by_rank:
        least = panels[index].least
        if least <= height:
            given[index] = least
            height -= least
    growing = True
    while growing:
        growing = False
        for index in by_rank:
            if height and 0 < given[index] < panels[index].most:
                given[index] += 1
                height -= 1
                growing = True
    return given
