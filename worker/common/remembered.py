"""What was made of values that come again and again, within bounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

Key = TypeVar("Key")
Made = TypeVar("Made")


class Remembered(dict[Key, Made]):
    """Makes of each key what `make` returns, and remembers it; forgets everything when it is full.

    At most `most` keys are remembered, and none whose `size` is over `longest`: so what strangers send has a bound in
    bytes, too. Raises what `make` raises, which is not remembered.
    """

    def __init__(
        self, make: Callable[[Key], Made], size: Callable[[Key], int], *, longest: int, most: int
    ) -> None:
        super().__init__()
        self._make = make
        self._size_of = size
        self._longest = longest
        self._most = most

    def __missing__(self, key: Key) -> Made:
        made = self._make(key)
        if self._size_of(key) <= self._longest:
            if len(self) >= self._most:
                self.clear()
            self[key] = made
        return made
