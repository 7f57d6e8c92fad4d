"""How much is measured: as much as a table needs, or little, to see that all of it works."""

from __future__ import annotations

from dataclasses import dataclass

from tests.benchmarks.programs import BARE, FASTSTREAM, FLOOR, WORKER


@dataclass(frozen=True, kw_only=True)
class Scale:
    """The sizes of all measures.

    Attributes:
        rounds: how often each program takes its turn where programs are compared, or a start is measured.
        programs: those that are compared; the bare loop has to be one of them.
        jobs: how many jobs are measured in a round.
        warmup: how many jobs come before them.
        tail: how many come behind them, so that the measured ones end while others are in work.
        windows: how many windows of steady work are measured.
        window: the length of one in seconds.
        delays: LCM's delays in seconds, of the grid.
        sessions: the numbers of sessions of the grid.
        workers: the numbers of workers that share the work.
        paced: for how many seconds jobs come at half load, in each round of three.
        recoveries: how often the broker and LCM go away.
        away: for how many seconds LCM does.
        growth: over how many jobs memory is watched.
        account_jobs: how many jobs share 500 accounts.
        log_lines: how many lines `top --once` reads.
        job_lines: how many lines `submit` publishes.
    """

    rounds: int = 10
    programs: tuple[str, ...] = (WORKER, BARE, FLOOR, FASTSTREAM)
    jobs: int = 3000
    warmup: int = 500
    tail: int = 200
    windows: int = 3
    window: float = 3.0
    delays: tuple[float, ...] = (0.01, 0.05, 0.2, 1.0)
    sessions: tuple[int, ...] = (8, 32, 128, 512)
    workers: tuple[int, ...] = (1, 2, 4)
    paced: float = 8.0
    recoveries: int = 3
    away: float = 5.0
    growth: int = 20_000
    account_jobs: int = 10_000
    log_lines: int = 1_000_000
    job_lines: int = 100_000


QUICK = Scale(
    rounds=2,
    jobs=300,
    warmup=100,
    tail=100,
    windows=2,
    window=1.0,
    delays=(0.05, 0.2),
    sessions=(8, 64),
    workers=(1, 2),
    paced=2.0,
    recoveries=1,
    away=2.0,
    growth=2000,
    account_jobs=1000,
    log_lines=20_000,
    job_lines=2000,
)
LONG_GROWTH = 200_000
