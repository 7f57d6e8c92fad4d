"""What is shown on a terminal: nothing in it takes the terminal over, or forges a line."""

from __future__ import annotations

import io

import pytest
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from worker.cli.terminal import Terminal, one_cell, one_line

HOSTILE = "evil\x1b]52;c;aGk=\x07\x9b31m\x7f\u202egnp\u2028[red]end[/red] :smile:"


def shown(renderable: object) -> str:
    """Return what a terminal gets of something that is printed, without colours."""
    stream = io.StringIO()
    Terminal(file=stream, width=200, color_system=None, force_terminal=True).print(renderable)
    return stream.getvalue()


def table() -> Table:
    found = Table(title=HOSTILE)
    found.add_column(HOSTILE)
    found.add_row(HOSTILE)
    return found


@pytest.mark.parametrize(
    "renderable",
    [HOSTILE, Text(HOSTILE), Panel(Text(HOSTILE)), table()],
    ids=lambda each: type(each).__name__,
)
def test_no_control_sequence_gets_through(renderable: object) -> None:
    """However it is shown, a text comes out as printable characters, and no markup in it is obeyed."""
    text = shown(renderable)
    assert [char for char in text.replace("\n", "") if not char.isprintable()] == []
    assert r"\x1b]52;c;aGk=" in text
    assert "[red]end[/red] :smile:" in text


def test_text_from_outside_is_one_line() -> None:
    """A line break in it is shown, and begins no line."""
    assert shown(one_line("a\nb\r\u2028c")) == "a\\nb\\r\\u2028c\n"


def test_text_from_outside_is_one_cell() -> None:
    """Blanks in it are no gap between cells, and marks cover no other line; what languages write stays."""
    assert shown(one_cell("w-1    3   busy")) == "w-1 \\x20\\x20\\x203 \\x20\\x20busy\n"
    assert shown(one_cell("w-1\u2800\u31643")) == "w-1\\u2800\\u31643\n"
    assert shown(one_cell("a" + "\u0336" * 6)) == "a" + "\u0336" * 4 + "\\u0336\\u0336\n"
    for text in "Anna Müller-Lüdenscheidt", "กี่ที่", "क्षत्रिय", "Việt Nam", "שָׁלוֹם":
        assert shown(one_cell(text)) == f"{text}\n"
