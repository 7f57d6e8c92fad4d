"""Throughput: which share of `sessions / delay` a worker reaches, for several delays of LCM and numbers of sessions."""

from __future__ import annotations

from collections.abc import Callable

from tests.benchmarks.figures import Samples, Table
from tests.benchmarks.measures.steady import Steady, steady
from tests.benchmarks.progress import Progress
from tests.benchmarks.scale import Scale
from tests.benchmarks.stage import Stage

SECTION = "grid"
SHARE = "Share of sessions / delay"


async def measure(stage: Stage, scale: Scale, progress: Progress) -> list[Table]:
    """Return a table of shares, one of LCM's replies a second, and one of the CPUs that it took."""
    found: dict[tuple[float, int], Steady] = {}
    for delay in scale.delays:
        for sessions in scale.sessions:
            progress.doing(f"throughput, {delay * 1000:g} ms, {sessions} sessions")
            found[delay, sessions] = await steady(stage, scale, delay=delay, sessions=sessions)

    def table(title: str, figure: Callable[[Steady], Samples], note: str) -> Table:
        return Table(
            SECTION,
            title,
            ("LCM's delay", *(f"{sessions} sessions" for sessions in scale.sessions)),
            tuple(
                (f"{delay * 1000:g} ms", *(figure(found[delay, sessions]) for sessions in scale.sessions))
                for delay in scale.delays
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
        table("Jobs a second", lambda each: each.rate, "LCM's replies in the same windows."),
        table(
            "CPUs kept busy",
            lambda each: each.cores,
            "By the worker alone: at 1 it can't go faster. The broker, LCM and the one who collects the results run "
            "on the same machine.",
        ),
    ]
