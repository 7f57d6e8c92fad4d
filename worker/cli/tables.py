"""Tables for a terminal. External text is escaped, so it cannot forge a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from worker.cli.terminal import one_cell, one_line

_UNBROKEN_CODE = 40


def table(*columns: str, title: str = "") -> Table:
    """Return a table without rows, in which long cells are wrapped, never cut."""
    made = Table(
        box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold", title_style="bold"
    )
    made.title, made.title_justify = title or None, "left"
    for column in columns:
        made.add_column(column, overflow="fold")
    return made


def outcome_table(outcomes: Sequence[tuple[str, str, str]], *, title: str = "") -> Table:
    """Return the table of outcomes, each an id, a code and a description."""
    made = table("id", "code", "description", title=title)
    made.columns[0].justify = "right"
    # Descriptions wrap between words; a code is one word, so the codes get their width first.
    made.columns[1].no_wrap = max((len(code) for _, code, _ in outcomes), default=0) <= _UNBROKEN_CODE
    for outcome in outcomes:
        add_row(made, *outcome)
    return made


def named_values(values: Mapping[str, str]) -> Table:
    """Return a name and its value in each line; what is long is broken between words, beside its name."""
    made = Table.grid(padding=(0, 2, 0, 0))
    made.add_column(overflow="fold")
    made.add_column(overflow="fold")
    for name, value in values.items():
        made.add_row(one_line(name), one_line(value))
    return made


def add_row(made: Table, *cells: str | Text, style: str = "") -> None:
    """Add a row. Cells that are strings are escaped; a Text is taken as it is."""
    shown = [one_cell(cell) if isinstance(cell, str) else cell for cell in cells]
    made.add_row(*shown, style=style)
