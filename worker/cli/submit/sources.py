"""The files that jobs come from. Each is read twice, so what can be read only once is put aside first."""

from __future__ import annotations

import shutil
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import BinaryIO

from worker.submitting.reading import BadInput, Entry, Format, entries, guess

STANDARD_INPUT = "-"
_KEPT_IN_MEMORY = 1024 * 1024


@dataclass(frozen=True)
class Source:
    """One file. `argument` is how the user named it, `name` how it is shown; `format` is known, never AUTO."""

    argument: str
    name: str
    format: Format
    open: Callable[[], AbstractContextManager[BinaryIO]]

    def entries(self) -> Iterator[Entry]:
        """Read the file from its beginning. Raises BadInput."""
        with _explained(self.name), self.open() as file:
            yield from entries(file, self.format)


@contextmanager
def opened(arguments: Sequence[str], kind: Format, note: Callable[[str], None]) -> Iterator[list[Source]]:
    """Give the files of these names, `-` being standard input; `note` is told of a format that is in doubt.

    Raises:
        BadInput: one can't be read, or is in no format that is read here.
    """
    with ExitStack() as stack:
        yield [_source(argument, kind, note, stack) for argument in arguments]


def _source(argument: str, kind: Format, note: Callable[[str], None], stack: ExitStack) -> Source:
    name = "standard input" if argument == STANDARD_INPUT else argument
    with _explained(name):
        opening = _opening(argument, stack)
        if kind is Format.AUTO:
            with opening() as file:
                kind, doubt = guess(file)
            if doubt:
                note(f"{name}: {doubt} (see --format)")
    return Source(argument, name, kind, opening)


def _opening(argument: str, stack: ExitStack) -> Callable[[], AbstractContextManager[BinaryIO]]:
    if argument == STANDARD_INPUT:
        # Not sys.stdin: whatever was decoded by it would be gone.
        with open(sys.stdin.fileno(), "rb", closefd=False) as file:
            return _spooled(file, stack)
    path = Path(argument)
    if not stat.S_ISREG(path.stat().st_mode):
        with path.open("rb") as file:
            return _spooled(file, stack)
    return lambda: path.open("rb")


def _spooled(file: BinaryIO, stack: ExitStack) -> Callable[[], AbstractContextManager[BinaryIO]]:
    kept = SpooledTemporaryFile(_KEPT_IN_MEMORY)  # noqa: SIM115 - closed by the stack
    stack.callback(kept.close)
    shutil.copyfileobj(file, kept)

    @contextmanager
    def from_the_beginning() -> Iterator[BinaryIO]:
        kept.seek(0)
        yield kept  # type: ignore[misc] # it is one in all but its declared type

    return from_the_beginning


@contextmanager
def _explained(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BadInput(f"{name}: can't be read: {error.strerror or error}") from error
    except BadInput as error:
        raise BadInput(f"{name}: {error}") from error
