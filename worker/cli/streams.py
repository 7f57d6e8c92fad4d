"""The standard streams: there are always three of them, and one that takes nothing more ends in no traceback.

Those that are a terminal show printable characters alone. Standard error shows no secret of the settings in force.
"""

from __future__ import annotations

import io
import os
import select
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from worker.common.text import printable_json, printable_lines
from worker.contract.errors import WorkerError

_STREAMS = range(3)


class OutputLost(WorkerError):
    """Standard output can't be written, as on a full disk."""


@contextmanager
def standard_streams() -> Iterator[None]:
    """Let a command use its standard streams while inside, whatever the shell made of them.

    One that is closed is /dev/null. The first line that standard output does not take raises OutputLost, or
    BrokenPipeError where nobody reads any more; either way the process ends with status 1, and a full disk is told in
    one line. What standard error does not take is dropped, since nobody can be told.
    """
    _open_closed()
    output = _Output(1, "w", closefd=False)
    sys.stdin = sys.stdin or open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - it stays open, as any standard stream
    sys.stdout = _text(output, like=sys.stdout, errors="strict")
    sys.stderr = _text(_Notes(2, "w", closefd=False), like=sys.stderr, errors="backslashreplace")
    try:
        yield
    finally:
        with suppress(OutputLost, BrokenPipeError):
            sys.stdout.flush()
        if output.failure is not None:
            if not isinstance(output.failure, BrokenPipeError):
                print(f"lcm-worker: {_lost(output.failure)}", file=sys.stderr)
            sys.exit(1)


def _open_closed() -> None:
    """Open /dev/null in place of closed streams: a socket that got one of their numbers would be taken for it."""
    for number in _STREAMS:
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is this one. Programs that are started inherit it, as they do any standard stream.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def _text(raw: io.FileIO, *, like: TextIO | None, errors: str) -> TextIO:
    encoding, errors = (like.encoding, like.errors or errors) if like else ("utf-8", errors)
    return _Text(io.BufferedWriter(raw), encoding=encoding, errors=errors, newline="\n", line_buffering=True)


def hide_in_notes(hide: Callable[[str], str]) -> None:
    """Mask in all that goes to standard error from now on, whoever prints it: a library, or a traceback."""
    if isinstance(sys.stderr, _Text):
        sys.stderr.hide = hide


class _Text(io.TextIOWrapper):
    """Text of a standard stream: whoever prints it, an error of usage or a traceback too, `hide` masks it first.

    Only printable lines get to a terminal.
    """

    hide: Callable[[str], str] = staticmethod(str.__str__)

    def write(self, text: str, /) -> int:
        self.write_as_it_is(printable_lines(text) if self.isatty() else text)
        return len(text)

    def write_as_it_is(self, text: str) -> int:
        """Write for who has made printable what others said."""
        return super().write(self.hide(text))


class AsItIs:
    """A standard stream for who has made printable what others said, and has control sequences of its own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write without an escape for anything."""
        return (
            self._stream.write_as_it_is(text) if isinstance(self._stream, _Text) else self._stream.write(text)
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class PatientFile(io.FileIO):
    """A file that waits where another process made it non-blocking, as happens to pipes and terminals they share."""

    def write(self, data: Any, /) -> int:
        while (written := super().write(data)) is None:
            select.select([], [self], [])
        return written


class TerminalFile(PatientFile):
    """A terminal on which lines of JSON and CSV are shown, with an escape for each character that is not printable."""

    def write(self, data: Any, /) -> int:
        left = printable_json(bytes(data))
        while left:
            left = left[super().write(left) :]
        return len(data)


class _Output(PatientFile):
    """Standard output. It raises its first failure, and keeps it; then it drops everything."""

    failure: OSError | None = None

    def write(self, data: Any, /) -> int:
        if self.failure is not None:
            return len(data)
        try:
            return super().write(data)
        except BrokenPipeError as error:
            self.failure = error
            raise
        except OSError as error:
            self.failure = error
            raise OutputLost(_lost(error)) from error


class _Notes(io.FileIO):
    """Standard error. It drops what it can't write."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data) or len(data)
        except OSError:
            return len(data)


def _lost(error: OSError) -> str:
    return f"standard output can't be written: {error.strerror or error}"
