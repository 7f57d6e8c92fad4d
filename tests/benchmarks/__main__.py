"""`make bench`: measures the worker beside other programs, and prints what that comes to as Markdown."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import uvloop

from tests.benchmarks.figures import Table
from tests.benchmarks.markdown import render
from tests.benchmarks.measures import (
    accounts,
    commands,
    cpu,
    grid,
    latency,
    memory,
    recovery,
    scaling,
    start,
)
from tests.benchmarks.programs import BARE, TITLES
from tests.benchmarks.progress import Progress
from tests.benchmarks.scale import LONG_GROWTH, QUICK, Scale
from tests.benchmarks.setting import describe
from tests.benchmarks.stage import Stage, staged
from worker.sandbox.node import Node

Measure = Callable[[Stage, Scale, Progress], Awaitable[list[Table]]]
MEASURES: Mapping[str, Measure] = {
    module.SECTION: module.measure
    for module in (cpu, grid, latency, scaling, start, recovery, memory, accounts, commands)
}

_REPEATS = (
    "{} results came more than once, as delivery at least once allows where the broker is slow to confirm: the "
    "machine was too busy for these figures."
)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--only", default=",".join(MEASURES), help="sections, with commas: %(default)s")
    parser.add_argument("--quick", action="store_true", help="little of each, to see that it works")
    parser.add_argument("--rounds", type=int, help="how often programs that are compared take turns")
    parser.add_argument("--jobs", type=int, help="how many jobs such a round measures")
    parser.add_argument("--programs", help=f"those that are compared, with commas: {','.join(TITLES)}")
    parser.add_argument("--long", action="store_true", help=f"watch memory over {LONG_GROWTH:,} jobs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    parser.add_argument("--plot", type=Path, metavar="DIR", help="draw them there, as SVG")
    given = parser.parse_args()
    given.only = given.only.split(",")
    given.programs = tuple(given.programs.split(",")) if given.programs else tuple(TITLES)
    if unknown := set(given.only) - MEASURES.keys():
        parser.error(f"there are the sections {', '.join(MEASURES)}, and no {', '.join(sorted(unknown))}")
    if BARE not in given.programs or set(given.programs) - TITLES.keys():
        parser.error(
            f"programs are {', '.join(TITLES)}, and {BARE} has to be one: it is what others are compared to"
        )
    return given


def scale_of(given: argparse.Namespace) -> Scale:
    scale = replace(QUICK if given.quick else Scale(), programs=given.programs)
    wanted = {"rounds": given.rounds, "jobs": given.jobs, "growth": LONG_GROWTH if given.long else None}
    return replace(scale, **{name: value for name, value in wanted.items() if value is not None})


@dataclass(frozen=True)
class Report:
    """What `--json` writes: where the figures come from, and the figures."""

    setting: str
    tables: list[Table]


async def measure(sections: list[str], scale: Scale) -> Report:
    """Run these sections, and print each as soon as it is there."""
    progress = Progress()
    async with Node() as node, staged(node, node.url) as stage:
        report = Report(await describe(node), [])
        _print(report.setting + "\n")
        for section in sections:
            found = await MEASURES[section](stage, scale, progress)
            progress.done()
            _print(*map(render, found))
            report.tables.extend(found)
        if stage.repeats:
            _print(_REPEATS.format(stage.repeats))
    return report


def _print(*paragraphs: str) -> None:
    for paragraph in paragraphs:
        sys.stdout.write(paragraph + "\n")
    sys.stdout.flush()


def main() -> None:
    given = options()
    report = uvloop.run(measure(given.only, scale_of(given)))
    if given.json:
        given.json.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
    if given.plot:
        from tests.benchmarks.plots import draw  # noqa: PLC0415 - the library takes a second

        draw(report.tables, given.plot)


if __name__ == "__main__":
    main()
