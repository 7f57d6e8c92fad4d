"""structlog without rich, which it loads where it is installed: 4 MiB for coloured tracebacks that no log here has."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def _absent(package: str) -> Iterator[None]:
    """Have a package that is not loaded yet seem not to be installed."""
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment] # what makes an import fail, by the language's reference
    try:
        yield
    finally:
        del sys.modules[package]


with _absent("rich"):
    import structlog

__all__ = ["structlog"]
