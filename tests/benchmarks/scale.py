"""How much is measured: as much as a table needs, or little, to see that all of it works."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Scale:
    """The sizes of all measures.

    Attributes:
        rounds: how often each program takes its turn.
        jobs: how many jobs are measured in a round.
        warmup: how many jobs come before them.
        tail: how many come behind them, so that the measured ones end while others are in work.
    """

    rounds: int = 10
    jobs: int = 3000
    warmup: int = 500
    tail: int = 200


QUICK = Scale(rounds=2, jobs=300, warmup=100, tail=100)
