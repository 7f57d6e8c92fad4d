"""Which panels a screen of few lines has room for. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Panel:
    """A part of the screen, drawn in a given number of lines, from `least` to `most`.

    `rank` says who comes first where there is too little room: 0 before 1.
    """

    rank: int
    least: int
    most: int
    draw: Callable[[int], Any]


def shares(panels: Sequence[Panel], height: int | None) -> list[int]:
    """Return the lines of each panel: its least by rank, 0 where it is left out; what remains goes around in turn.

    Without a height, each gets its most.
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
