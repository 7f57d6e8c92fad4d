"""The exchange with LCM under thousands of random schedules, on virtual time; see README.md."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.simulation.loop import VirtualLoop
from tests.simulation.plan import CONNECT_ILLS, REPLY_ILLS
from tests.simulation.progress import Progress
from tests.simulation.run import Run, run, runs

_ROOT = Path(__file__).parents[2]
_SHOWN = 3
_PART = 250  # schedules that a process takes at a time


def test_every_schedule_keeps_the_promises(seeds: Sequence[int], chosen_seed: int | None) -> None:
    """No answer is another account's, no one waits for ever, nothing is left behind, and all is counted right."""
    if chosen_seed is not None:
        sys.stdout.write(f"\n{_told([chosen_seed])}\n")
        wrong = _wrong_of([chosen_seed])
    else:
        wrong = _all_wrong(seeds)
    assert not wrong, "\n\n".join(map(_replayed, wrong[:_SHOWN]))


def _all_wrong(seeds: Sequence[int]) -> list[int]:
    """Run the schedules on all processors, until enough of them went wrong."""
    wrong: list[int] = []
    parts = [seeds[start : start + _PART] for start in range(0, len(seeds), _PART)]
    # Fresh interpreters: a fork would take along whatever the tests before have left open.
    context = multiprocessing.get_context("spawn")
    with Progress(len(seeds)) as progress, ProcessPoolExecutor(mp_context=context) as pool:
        for part, found in zip(parts, pool.map(_wrong_of, parts), strict=True):
            progress.add(len(part))
            wrong += found
            if len(wrong) >= _SHOWN:
                pool.shutdown(cancel_futures=True)
                break
    return wrong


def _wrong_of(seeds: Sequence[int]) -> list[int]:
    return [done.plan.seed for done in runs(seeds) if done.violations]


def _replayed(seed: int) -> str:
    [again] = runs([seed], traced=True)
    return f'{again}\nreplay it by: make soak ARGS="--simulation-seed {seed}"'


def test_the_same_seed_is_the_same_run() -> None:
    """Run again, here or by an interpreter that hashes otherwise, a schedule goes the same way, byte for byte."""
    seeds = range(20)
    here = _told(seeds)
    assert _told(seeds) == here
    code = f"from tests.simulation.test_simulation import _told; print(end=_told({seeds!r}))"
    for hash_seed in ("1", "2"):
        there = subprocess.run(  # noqa: S603 - this very interpreter
            [sys.executable, "-W", "error", "-c", code],
            cwd=_ROOT,
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            check=True,
            capture_output=True,
            text=True,
        )
        assert there.stdout == here


def _told(seeds: Sequence[int]) -> str:
    return "\n".join(str(run(seed, traced=True)) for seed in seeds)


def test_schedules_are_of_many_shapes() -> None:
    """Each of LCM's ills comes up, and each way in which a lookup may end: what is checked can be met with."""
    told = "\n".join(map(_trace_of, map(_traced, range(600))))
    ends = [
        "LookupResult",
        "Deferred",
        "Expired",
        "StaleDelivery",
        "CancelledError",
        "LcmRejected",
        "LcmError",
    ]
    ends += ["ReplyTimeout", "ConnectionLost", "MalformedReply", "ReplyTooLarge"]
    seen = {ill for ill in (*CONNECT_ILLS, *REPLY_ILLS) if f" {ill}\n" in told}
    assert seen == {*CONNECT_ILLS, *REPLY_ILLS}
    assert [end for end in ends if f"ends: {end} " not in told] == []
    for by in ("'by': 'sessions'", "'by': 'exchanges'", "lcm.outage_ended", "is cancelled"):
        assert by in told


def _traced(seed: int) -> Run:
    return run(seed, traced=True)


def _trace_of(done: Run) -> str:
    return "\n".join(done.trace or ()) + "\n"


def _draw(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 - no secret


def test_time_passes_only_where_nothing_is_to_be_done() -> None:
    """Timers fire in their order and at their times, however far away, and what is asked for soon comes first."""
    complaints: list[str] = []
    loop, seen = VirtualLoop(_draw(0), complaints.append), list[tuple[str, float]]()

    async def wait(name: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        seen.append((name, loop.time()))

    for name, seconds in (("hours", 7200.0), ("a moment", 0.25), ("nothing", 0.0)):
        loop.create_task(wait(name, seconds))
    loop.advance(1.0)
    assert (seen, loop.time()) == ([("nothing", 0.0), ("a moment", 0.25)], 1.0)
    loop.advance(10_000.0)
    assert seen[2:] == [("hours", 7200.0)]
    loop.close()
    assert complaints == []


def test_the_order_of_simultaneous_timers_is_drawn() -> None:
    """Of two timers that are due at the same moment, either may be the first."""
    orders: set[str] = set()
    for seed in range(20):
        loop, order = VirtualLoop(_draw(seed), orders.add), list[int]()
        loop.call_later(1.0, order.append, 1)
        loop.call_later(1.0, order.append, 2)
        loop.advance(1.0)
        loop.close()
        orders.add(str(order))
    assert orders == {"[1, 2]", "[2, 1]"}
