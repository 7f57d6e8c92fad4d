"""Tables as plots: SVG files, named after their section."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tests.benchmarks.figures import Samples, Table
from tests.benchmarks.measures import cpu, grid, latency, memory, scaling

_WIDTH, _HEIGHT = 7.0, 3.0  # inches, of each table: one below the other, as the labels of bars are long
# The same figures give the same file: no date, and no ids drawn at random.
_STYLE: Any = {"svg.hashsalt": "bench", "svg.fonttype": "none", "axes.grid": True, "grid.alpha": 0.3}


def draw(tables: Sequence[Table], folder: Path) -> list[Path]:
    """Draw those of the tables that plots are made of, and return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for name, titles in _titles(tables).items():
        path = folder / f"{name}.svg"
        with mpl.rc_context(_STYLE):
            figure = Figure(figsize=(_WIDTH, _HEIGHT * len(titles)), layout="constrained")
            rows = figure.subplots(len(titles), squeeze=False)
            for (axes,), table in zip(rows, titles, strict=True):
                _PLOTS[name][1](axes, table)
                axes.set_title(table.title, fontsize="medium")
            figure.savefig(path, metadata={"Date": None})
        drawn.append(path)
    return drawn


def _titles(tables: Sequence[Table]) -> dict[str, list[Table]]:
    found = {name: [table for table in tables if wanted(table)] for name, (wanted, _) in _PLOTS.items()}
    return {name: of_it for name, of_it in found.items() if of_it}


def _bars(axes: Axes, table: Table, column: int = 1, labels: int = 1) -> None:
    """Draw a bar for each row, and a line from the least to the largest."""
    rows = [
        ("\n".join(map(str, row[:labels])), cell)
        for row in table.rows
        if isinstance(cell := row[column], Samples)
    ]
    middles = [cell.median for _, cell in rows]
    spread = [
        [middle - min(cell.values) for middle, (_, cell) in zip(middles, rows, strict=True)],
        [max(cell.values) - middle for middle, (_, cell) in zip(middles, rows, strict=True)],
    ]
    axes.barh([label for label, _ in rows], middles, xerr=spread, capsize=3)
    axes.invert_yaxis()
    axes.set_xlabel(table.columns[column])


def _latencies(axes: Axes, table: Table) -> None:
    _bars(axes, table, column=2, labels=2)


def _shares(axes: Axes, table: Table) -> None:
    """Draw a line for each delay, over the numbers of sessions."""
    for label, *cells in table.rows:
        shares = [cell.median for cell in cells if isinstance(cell, Samples)]
        axes.plot([name.split()[0] for name in table.columns[1:]], shares, marker="o", label=str(label))
    axes.set_ylim(0, 105)
    axes.set_xlabel("sessions")
    axes.set_ylabel("%")
    axes.legend(title="LCM's delay")


def _course(axes: Axes, table: Table) -> None:
    """Draw the second column over the first, which counts."""
    points = [
        (int(str(label).replace(",", "")), cell.median)
        for label, cell in table.rows
        if isinstance(cell, Samples)
    ]
    axes.plot([jobs for jobs, _ in points], [size for _, size in points], marker="o")
    axes.set_ylim(0, 1.15 * max(size for _, size in points))
    axes.set_xlabel(table.columns[0])
    axes.set_ylabel("MiB")


_PLOTS: Mapping[str, tuple[Callable[[Table], bool], Callable[[Axes, Table], None]]] = {
    "cpu": (lambda table: table.section == cpu.SECTION, _bars),
    "throughput": (lambda table: table.title == grid.SHARE, _shares),
    "latency": (lambda table: table.section == latency.SECTION, _latencies),
    "workers": (lambda table: table.section == scaling.SECTION, _bars),
    "memory": (lambda table: table.title == memory.GROWTH, _course),
}
