"""Throughput: which share of `sessions / delay` a worker reaches, for several delays of LCM and numbers of sessions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tests.benchmarks.figures import Samples, Table
from tests.benchmarks.measures.steady import Steady, steady
from tests.benchmarks.programs import FLOOR, TITLES, WORKER
from tests.benchmarks.progress import Progress
from tests.benchmarks.scale import Scale
from tests.benchmarks.stage import Stage

SECTION = "grid"
SHARE = "Share of sessions / delay"


Cells = dict[tuple[float, int], Steady]
"""By LCM's delay in seconds and the number of sessions."""


async def measure(stage: Stage, scale: Scale, progress: Progress) -> list[Table]:
    """Return a table of shares, one of LCM's replies a second, and one of the CPUs that it took."""
    found = await _cells(stage, scale, progress, WORKER)
    # What a machine's own turnaround costs shows where delays are short, and before its CPUs are busy.
    few = replace(scale, delays=scale.delays[:2], sessions=scale.sessions[:2])
    floor = await _cells(stage, few, progress, FLOOR)

    def table(
        title: str, figure: Callable[[Steady], Samples], note: str, cells: Cells = found, of: Scale = scale
    ) -> Table:
        return Table(
            SECTION,
            title,
            ("LCM's delay", *(f"{sessions} sessions" for sessions in of.sessions)),
            tuple(
                (f"{delay * 1000:g} ms", *(figure(cells[delay, sessions]) for sessions in of.sessions))
                for delay in of.delays
            ),
            note,
        )

    return [
        table(
            SHARE,
            lambda each: each.busy,
            "The share of the sessions' time in which LCM was at a request of theirs, as LCM itself counts: from "
            "the moment when it has read a request to that when it has written the reply. Its delays are spread by "
            f"20 % to either side. Medians of {scale.windows} windows of {scale.window:g} s (least to largest).",
        ),
        table(
            f"{SHARE}, the floor",
            lambda each: each.busy,
            "What the same libraries reach on this machine where nothing stands between them.",
            floor,
            few,
        ),
        table("Jobs a second", lambda each: each.rate, "LCM's replies in the same windows."),
        table(
            "CPUs kept busy",
            lambda each: each.cores,
            "By the worker alone: at 1 it can't go faster. The broker, LCM and the one who collects the results run "
            "on the same machine.",
        ),
    ]


async def _cells(stage: Stage, scale: Scale, progress: Progress, name: str) -> Cells:
    found: Cells = {}
    for delay in scale.delays:
        for sessions in scale.sessions:
            progress.doing(f"throughput of {TITLES[name]}, {delay * 1000:g} ms, {sessions} sessions")
            found[delay, sessions] = await steady(stage, scale, delay=delay, sessions=sessions, name=name)
    return found
