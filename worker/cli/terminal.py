"""The terminal that commands show things on: whatever text reaches it, only printable characters do.

Text comes from LCM, from producers, from logs and from files; a control sequence in it could retitle the window, fill
the clipboard or hide a line. So it is made printable where all of it comes through, and not by each who shows it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from worker.common.text import printable


class Terminal(Console):
    """A console that interprets nothing in what is printed: no markup, no emoji, no control sequences."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**({"markup": False, "highlight": False, "emoji": False} | options))

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render something; the library's own control sequences stay as they are."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                shown = "\n".join(map(printable, segment.text.split("\n")))
                yield Segment(shown, segment.style)
