"""Reads a page as a browser would, and fails where it is no well-formed HTML."""

from __future__ import annotations

from html.parser import HTMLParser

_VOID = {"meta", "br"}


class Document(HTMLParser):
    """What is in a page: its elements with their attributes, its texts, and the texts of its scripts and styles."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.code: list[str] = []
        self._open: list[str] = []
        self.feed(page.decode())
        self.close()
        assert self._open == [], "elements that nothing ends"

    @property
    def attributes(self) -> set[str]:
        """The names of all attributes."""
        return {name for _, attributes in self.elements for name in attributes}

    @property
    def tags(self) -> set[str]:
        return {tag for tag, _ in self.elements}

    def meta(self, name: str) -> str:
        """Return the content of the `meta` element that stands in for this header."""
        [content] = [found["content"] for _, found in self.elements if found.get("http-equiv") == name]
        assert content is not None
        return content

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        (self.code if self._open and self._open[-1] in {"script", "style"} else self.texts).append(data)
