"""The logs that `top` reads: pipes, and files, which may grow and be rotated."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from worker.cli.top.reading import Reader
from worker.cli.top.tally import Tally

_MAX_READ = 1 << 18
# Between two files, so that an unfinished last line of one is not joined to the first line of the next.
_END_OF_LINE = b"\n"


class Source(Protocol):
    """A log that is read in pieces. `ended` is true once nothing more can come."""

    ended: bool

    def read(self) -> bytes:
        """Return the next piece, b"" where there is none now. Does not block when the source is ready to read."""

    def close(self) -> None: ...


class Stream:
    """A pipe, which ends when its writer closes it. `read` blocks unless the descriptor is readable."""

    def __init__(self, descriptor: int) -> None:
        self.ended = False
        self.descriptor = descriptor

    def read(self) -> bytes:
        data = os.read(self.descriptor, _MAX_READ)
        self.ended = not data
        return data

    def close(self) -> None:
        """Do nothing: whoever opened the descriptor closes it."""


class File:
    """A file, read to its end or, with `follow`, without end and by its name, as by `tail -F`.

    A file that is followed may be missing for now. When it is replaced, it is read to its end and then the new one
    from its beginning; when it is truncated, it is read from its beginning again.

    Raises:
        OSError: it can't be read, and is not followed.
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
        data = os.read(self._descriptor, _MAX_READ)
        if data:
            return data
        if not self._follow:
            self.ended = True
        elif self._was_truncated():
            os.lseek(self._descriptor, 0, os.SEEK_SET)
            return _END_OF_LINE
        elif self._was_replaced():
            # Something may have been written between the last read and the replacement.
            data = os.read(self._descriptor, _MAX_READ)
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
        except OSError:  # in the middle of a rotation, or not created yet
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
    """Reads all sources and counts their events in a tally."""

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
        """How many lines were not lines of a worker's log."""
        return sum(reader.skipped for _, reader in self._inputs)

    @property
    def streams(self) -> list[int]:
        """The descriptors to wait for with select. Files are not among them: they are always ready."""
        return [
            source.descriptor for source, _ in self._inputs if isinstance(source, Stream) and not source.ended
        ]

    def read(self, ready: Sequence[int], now: float = 0.0) -> bool:
        """Read, `now`, one piece of each file, and of each stream that is `ready`; return whether there was any."""
        any_data = False
        for source, reader in self._inputs:
            if source.ended or (isinstance(source, Stream) and source.descriptor not in ready):
                continue
            data = source.read()
            any_data = any_data or bool(data)
            self.tally.feed(reader.feed(data), now)
        return any_data

    def close(self) -> None:
        """Count last lines that have no line break, and close the files."""
        for source, reader in self._inputs:
            self.tally.feed(reader.end())
            source.close()
