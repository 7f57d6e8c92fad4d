"""Single keys of the controlling terminal, for live views."""

from __future__ import annotations

import os
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def keyboard() -> Iterator[int | None]:
    """Give a descriptor to read single keys from, whatever standard input is; None where there is no terminal."""
    try:
        descriptor = os.open("/dev/tty", os.O_RDONLY)
    except OSError:
        yield None
        return
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield descriptor
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
        os.close(descriptor)


def pressed(descriptor: int) -> str:
    """Return the keys that were pressed, in lower case; `q` where the terminal was closed."""
    try:
        return os.read(descriptor, 64).decode("latin-1").lower() or "q"
    except OSError:
        return "q"
