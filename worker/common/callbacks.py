"""Defaults for callbacks."""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")


def ignore(*_: object, **__: object) -> None:
    """Do nothing with whatever is passed."""


def unchanged(value: T) -> T:
    """Return what is passed."""
    return value


def always() -> bool:
    """Return True."""
    return True
