"""Defaults for callbacks."""

from __future__ import annotations


def ignore(*_: object, **__: object) -> None:
    """Do nothing with whatever is passed."""


def always() -> bool:
    """Return True."""
    return True
