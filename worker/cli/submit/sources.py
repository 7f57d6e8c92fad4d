"""The files that jobs are read from. Each is read twice, so pipes and the like are copied first."""

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

from worker.cli.accounts import MAX_LINE
from worker.cli.submit.reading import BadInput, Entry, Format, entries, guess

STANDARD_INPUT = "-"
_MAX_IN_MEMORY = 1024 * 1024


@dataclass(frozen=True)
class Source:
    """One file. `argument` is how the user named it, `name` how messages name it; `format` is never AUTO."""

    argument: str
    name: str
    format: Format
    open: Callable[[], AbstractContextManager[BinaryIO]]

    def entries(self) -> Iterator[Entry]:
        """Read the file from its beginning. Raises BadInput."""
        with _naming(self.name), self.open() as file:
            yield from entries(file, self.format)


@contextmanager
def open_sources(
    arguments: Sequence[str], kind: Format, note: Callable[[str], None]
) -> Iterator[list[Source]]:
    """Give the files of these names.

    Args:
        arguments: names of files; `-` is standard input.
        kind: their format; with AUTO, each one's is guessed from its first line.
        note: called with a text where a guess is doubtful.

    Raises:
        BadInput: a file can't be read, or its format is not supported.
    """
    with ExitStack() as stack:
        yield [_source(argument, kind, note, stack) for argument in arguments]


def _source(argument: str, kind: Format, note: Callable[[str], None], stack: ExitStack) -> Source:
    name = "standard input" if argument == STANDARD_INPUT else argument
    with _naming(name):
        open_file = _opener(argument, stack)
        if kind is Format.AUTO:
            with open_file() as file:
                kind, doubt = guess(file)
            if doubt:
                note(f"{name}: {doubt} (see --format)")
    return Source(argument, name, kind, open_file)


def _opener(argument: str, stack: ExitStack) -> Callable[[], AbstractContextManager[BinaryIO]]:
    if argument == STANDARD_INPUT:
        # Not sys.stdin, which may have read and decoded a part of it already.
        with open(sys.stdin.fileno(), "rb", closefd=False) as file:
            return _copy_opener(file, stack)
    path = Path(argument)
    if not stat.S_ISREG(path.stat().st_mode):
        with path.open("rb") as file:
            return _copy_opener(file, stack)
    return lambda: path.open("rb")


def _copy_opener(file: BinaryIO, stack: ExitStack) -> Callable[[], AbstractContextManager[BinaryIO]]:
    copy = SpooledTemporaryFile(_MAX_IN_MEMORY)  # noqa: SIM115 - closed by the stack
    stack.callback(copy.close)
    first = file.read(MAX_LINE)
    copy.write(first)
    # What has zero bytes is refused by whoever reads it, and may have no end.
    if b"\0" not in first:
        shutil.copyfileobj(file, copy)

    @contextmanager
    def rewound() -> Iterator[BinaryIO]:
        copy.seek(0)
        yield copy  # type: ignore[misc] # typeshed does not declare it as BinaryIO

    return rewound


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Make BadInput of errors, with the name of the file."""
    try:
        yield
    except OSError as error:
        raise BadInput(f"{name}: can't be read: {error.strerror or error}") from error
    except BadInput as error:
        raise BadInput(f"{name}: {error}") from error
