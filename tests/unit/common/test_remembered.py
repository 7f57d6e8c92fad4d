"""What is remembered is made once, and has bounds."""

from __future__ import annotations

import pytest

from worker.common.remembered import Remembered


def remembering(made: list[str]) -> Remembered[str, str]:
    """Return a memory of three texts of at most five characters, which tells in `made` what it makes."""

    def make(key: str) -> str:
        made.append(key)
        if key == "bad":
            raise ValueError(key)
        return key.upper()

    return Remembered(make, len, longest=5, most=3)


def test_what_comes_again_is_made_once() -> None:
    """A key gives the same each time, and only the first time costs."""
    made: list[str] = []
    memory = remembering(made)
    assert [memory[key] for key in ("a", "b", "a")] == ["A", "B", "A"]
    assert made == ["a", "b"]


def test_what_is_long_or_fails_is_not_remembered() -> None:
    """It is made each time, or raises each time."""
    made: list[str] = []
    memory = remembering(made)
    for _ in range(2):
        assert memory["longer"] == "LONGER"
        with pytest.raises(ValueError, match="bad"):
            memory["bad"]
    assert made == ["longer", "bad"] * 2
    assert not memory


def test_a_full_memory_starts_anew() -> None:
    """There are never more than so many, and what is asked for last is among them."""
    memory = remembering([])
    for number in range(100):
        assert memory[str(number)] == str(number)
        assert len(memory) <= 3
        assert str(number) in memory
