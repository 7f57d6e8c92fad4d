"""Tables for people at a terminal. What came from elsewhere is shown there, never obeyed."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

_WIDEST_CODE = 40

Row = Sequence[str | Text]


def table(*columns: str, title: str = "") -> Table:
    """Return a table without rows; what is too long is folded, never cut."""
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
    # Words of a description wrap well, a code is one word: what room there is goes to the codes first.
    made.columns[1].no_wrap = max((len(code) for _, code, _ in outcomes), default=0) <= _WIDEST_CODE
    for outcome in outcomes:
        add_row(made, *outcome)
    return made


def add_row(made: Table, *cells: str | Text, style: str = "") -> None:
    """Add a row; of a text nothing is taken for markup or for a terminal's commands."""
    shown = [Text(printable(cell)) if isinstance(cell, str) else cell for cell in cells]
    made.add_row(*shown, style=style)


def printable(text: str) -> str:
    """Return a text with everything escaped that would move a terminal's cursor, or worse."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
