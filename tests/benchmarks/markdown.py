"""Tables as Markdown, in the form in which `docs/performance.md` holds them. No input or output."""

from __future__ import annotations

from collections.abc import Iterable

from tests.benchmarks.figures import Table


def render(table: Table) -> str:
    """Return a heading, the table, and its note."""
    parts = [f"### {table.title}", "\n".join(_lines(table))]
    if table.note:
        parts.append(table.note)
    return "\n\n".join(parts) + "\n"


def _lines(table: Table) -> Iterable[str]:
    yield _line(table.columns)
    yield "|" + "---|" * len(table.columns)
    for row in table.rows:
        yield _line(map(str, row))


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
