"""The terminal that commands show things on: whatever text reaches it, only printable characters do.

Text comes from LCM, from producers, from logs and from files; a control sequence in it could retitle the window, fill
the clipboard or hide a line. No such text gets through a `Terminal`, whoever shows it. A line break does: where it
could forge a line, the text is shown by `one_line`.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Iterable
from typing import IO, Any, cast

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from worker.cli.streams import AsItIs
from worker.common.text import printable

_MARKS_OF_A_LETTER = 4
# Letters and signs that are shown as a blank, or as nothing.
_BLANK = r"\u2800\u115f\u1160\u3164\uffa0"
_LIKE_A_CELL = re.compile(rf"(?<= ) +|[{_BLANK}]")


class Terminal(Console):
    """A console that interprets nothing in what is printed: no markup, no emoji, no control sequences."""

    def __init__(self, **options: Any) -> None:
        file = options.pop("file", None) or (sys.stderr if options.get("stderr") else sys.stdout)
        plain = {"markup": False, "highlight": False, "emoji": False}
        super().__init__(file=cast(IO[str], AsItIs(file)), **(plain | options))

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render something; the library's own control sequences stay as they are."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                shown = "\n".join(map(printable, segment.text.split("\n")))
                yield Segment(shown, segment.style)


def one_line(text: str, style: str = "") -> Text:
    """Return text from outside as one line, whatever it holds."""
    return Text(printable(text), style=style)


def one_cell(text: str, style: str = "") -> Text:
    r"""Return text from outside as one line that can't pass for several cells of a table.

    An escape stands for each blank after a blank (`\x20`), for each letter that looks like one, and for more marks on a
    letter than a language has, which would cover the lines above.
    """
    shown = printable(text)
    if not shown.isascii():
        shown = _with_few_marks(shown)
    return Text(_LIKE_A_CELL.sub(_escaped, shown), style=style)


def _with_few_marks(text: str) -> str:
    parts, marks = [], 0
    for char in text:
        marks = marks + 1 if unicodedata.category(char) in {"Mn", "Me"} else 0
        parts.append(char if marks <= _MARKS_OF_A_LETTER else f"\\u{ord(char):04x}")
    return "".join(parts)


def _escaped(found: re.Match[str]) -> str:
    return "".join(r"\x20" if char == " " else f"\\u{ord(char):04x}" for char in found[0])
