"""Files that are replaced while somebody reads them, as by whoever renews a secret."""

from __future__ import annotations

from pathlib import Path


def replace(file: Path, text: str) -> None:
    """Put a new file in the old one's place."""
    new = file.with_suffix(".new")
    new.write_text(text)
    new.rename(file)
