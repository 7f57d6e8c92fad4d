"""`make bench`: measures the worker, and prints what it comes to as Markdown."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import uvloop

from tests.benchmarks.figures import Table
from tests.benchmarks.markdown import render
from tests.benchmarks.measures import cpu
from tests.benchmarks.progress import Progress
from tests.benchmarks.scale import QUICK, Scale
from tests.benchmarks.stage import Stage, staged

Measure = Callable[[Stage, Scale, Progress], Awaitable[list[Table]]]
MEASURES: dict[str, Measure] = {cpu.SECTION: cpu.measure}


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--only", default=",".join(MEASURES), help="sections, with commas: %(default)s")
    parser.add_argument("--quick", action="store_true", help="little of each, to see that it works")
    parser.add_argument("--rounds", type=int, help="how often programs that are compared take turns")
    parser.add_argument("--jobs", type=int, help="how many jobs a round measures")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    given = parser.parse_args()
    given.only = given.only.split(",")
    if unknown := set(given.only) - MEASURES.keys():
        parser.error(f"there are the sections {', '.join(MEASURES)}, and no {', '.join(sorted(unknown))}")
    return given


async def measure(given: argparse.Namespace) -> list[Table]:
    """Run the sections that are asked for, and print each as it is there."""
    scale = QUICK if given.quick else Scale()
    wanted = {"rounds": given.rounds, "jobs": given.jobs}
    scale = replace(scale, **{name: value for name, value in wanted.items() if value is not None})
    tables = []
    progress = Progress()
    async with staged() as stage:
        for section in given.only:
            found = await MEASURES[section](stage, scale, progress)
            progress.done()
            for table in found:
                sys.stdout.write(render(table) + "\n")
                sys.stdout.flush()
            tables += found
    return tables


def main() -> None:
    given = options()
    tables = uvloop.run(measure(given))
    if given.json:
        given.json.write_bytes(msgspec.json.format(msgspec.json.encode(tables)) + b"\n")


if __name__ == "__main__":
    main()
