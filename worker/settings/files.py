"""Files that settings name."""

from __future__ import annotations

from pathlib import Path

_LARGEST = 2**20  # bytes; no secret and no configuration comes near


def check_file(path: str) -> None:
    """Check that a file is there, is a regular one, and can be read: a pipe could be read once only, or never.

    Raises:
        ValueError: it isn't; the text says why.
    """
    try:
        if Path(path).exists() and not Path(path).is_file():
            raise ValueError("is no regular file")
        if not Path(path).is_file():
            raise ValueError("there is no such file")
        with Path(path).open("rb"):
            return
    except OSError as error:
        raise ValueError(f"can't be read: {error.strerror}") from error


def read_whole(path: Path) -> bytes:
    """Return what a file of any kind holds.

    Raises:
        OSError: it can't be read.
        ValueError: it holds more than 1 MiB.
    """
    with path.open("rb") as file:
        content = file.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise ValueError("holds more than 1 MiB")
    return content
