"""The terminal that commands show things on: whatever text reaches it, only printable characters do.

Text comes from LCM, from producers, from logs and from files; a control sequence in it could retitle the window, fill
the clipboard or hide a line. No such text gets through a `Terminal`, whoever shows it. A line break does: where it
could forge a line, the text is shown by `one_line`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import IO, Any, cast

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from worker.cli.streams import AsItIs
from worker.common.text import printable


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
