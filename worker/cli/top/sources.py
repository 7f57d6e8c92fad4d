"""Where a log comes from: a pipe that is read until its end, or a file, which may grow and be rotated."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from worker.top.reading import Reader
from worker.top.tally import Tally

_PIECE = 1 << 18
# Or the last line of one file, where it was cut, would spoil the first of the next.
_END_OF_LINE = b"\n"


class Source(Protocol):
    """A log that is read piece by piece."""

    ended: bool

    def read(self) -> bytes:
        """Return the next piece, nothing where there is none now; never waits, once it is known to be ready."""

    def close(self) -> None: ...


class Stream:
    """What is piped in. It ends with its writer. `read` waits unless the descriptor is readable."""

    def __init__(self, descriptor: int) -> None:
        self.ended = False
        self.descriptor = descriptor

    def read(self) -> bytes:
        data = os.read(self.descriptor, _PIECE)
        self.ended = not data
        return data

    def close(self) -> None:
        """Leave it open: it was given."""


class File:
    """A file, read to its end or, followed, for ever and by its name, as by `tail -F`.

    Followed, it may be missing for now; when it was replaced it is read to its end and then the new one from the
    beginning, and when it was truncated, from the beginning again.

    Raises:
        OSError: it can't be read, and isn't followed.
    """

    def __init__(self, path: Path, *, follow: bool) -> None:
        self.ended = False
        self._path = path
        self._follow = follow
        self._descriptor: int | None = None
        if not follow:
            self._descriptor = os.open(path, os.O_RDONLY)

    def read(self) -> bytes:
        if self._descriptor is None and not self._open():
            return b""
        assert self._descriptor is not None  # noqa: S101 - it was opened a moment ago
        data = os.read(self._descriptor, _PIECE)
        if data:
            return data
        if not self._follow:
            self.ended = True
        elif self._was_truncated():
            os.lseek(self._descriptor, 0, os.SEEK_SET)
            return _END_OF_LINE
        elif self._was_replaced():
            # What was written between the last look and the replacing is still to be read.
            data = os.read(self._descriptor, _PIECE)
            if not data:
                self.close()
                return _END_OF_LINE
        return data

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self) -> bool:
        try:
            self._descriptor = os.open(self._path, os.O_RDONLY)
        except OSError:  # between two steps of a rotation, or not written yet
            return False
        return True

    def _was_truncated(self) -> bool:
        assert self._descriptor is not None  # noqa: S101 - only asked while it is open
        return os.fstat(self._descriptor).st_size < os.lseek(self._descriptor, 0, os.SEEK_CUR)

    def _was_replaced(self) -> bool:
        assert self._descriptor is not None  # noqa: S101 - only asked while it is open
        try:
            named = self._path.stat()
        except OSError:
            return False
        return not os.path.samestat(named, os.fstat(self._descriptor))


class Feed:
    """Feeds a tally from all of its sources."""

    def __init__(self, sources: Sequence[Source], tally: Tally) -> None:
        self.tally = tally
        self._inputs = [(source, Reader()) for source in sources]

    @property
    def ended(self) -> bool:
        return all(source.ended for source, _ in self._inputs)

    @property
    def lines(self) -> int:
        return sum(reader.lines for _, reader in self._inputs)

    @property
    def skipped(self) -> int:
        """How many lines were none of a worker's log."""
        return sum(reader.skipped for _, reader in self._inputs)

    @property
    def streams(self) -> list[int]:
        """The descriptors to wait for; files are always ready, even where there is nothing new."""
        return [
            source.descriptor for source, _ in self._inputs if isinstance(source, Stream) and not source.ended
        ]

    def take(self, ready: Sequence[int]) -> bool:
        """Take one piece from each file, and of each stream that is ready; return whether there was any."""
        any_data = False
        for source, reader in self._inputs:
            if source.ended or (isinstance(source, Stream) and source.descriptor not in ready):
                continue
            data = source.read()
            any_data = any_data or bool(data)
            self.tally.feed(reader.feed(data))
        return any_data

    def close(self) -> None:
        """Count what stands in last lines without a line break, and close the files."""
        for source, reader in self._inputs:
            self.tally.feed(reader.end())
            source.close()
