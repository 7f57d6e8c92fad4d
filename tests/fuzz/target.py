"""What is fuzzed: a property of all inputs, words that make interesting ones, and a folder of inputs by its name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"


@dataclass(frozen=True)
class Target:
    """A property: `check` is called with any bytes, and raises where it does not hold for them."""

    name: str
    check: Callable[[bytes], None]
    words: tuple[bytes, ...] = ()

    @property
    def corpus(self) -> Path:
        """The folder of its committed inputs."""
        return CORPUS / self.name

    def seeds(self) -> list[bytes]:
        """Return the committed inputs, in a fixed order."""
        return [file.read_bytes() for file in sorted(self.corpus.iterdir())]
