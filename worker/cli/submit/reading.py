"""Parses files of jobs: JSON lines, CSV with a header, or plain account numbers, one to a line. Pure.

Only the current line is in memory, however long the file is. A line that can't be parsed becomes an entry with the
mistake, one that begins with # an entry with that comment. Blanks around account numbers and cells don't count.
"""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Iterable, Iterator
from enum import Enum
from typing import BinaryIO, NamedTuple

import msgspec

from worker.cli.accounts import (
    ACCOUNT_COLUMN,
    MAX_LINE,
    account_of_cell,
    account_of_line,
    column_of,
    is_comment,
    lines_of,
    trimmed,
)
from worker.common.text import quote
from worker.contract.errors import WorkerError

JOB_COLUMNS = ("job_id", "route", "deadline")
# In account numbers, too, there may be a |, so that it is no sign of a header by itself.
_DELIMITERS, _BAR = ",;\t", "|"
_COLUMNS = {column_of(name): name for name in (ACCOUNT_COLUMN, *JOB_COLUMNS)}
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class BadInput(WorkerError):
    """The input can't be read in its format; the text says where, and what to do."""


class Format(Enum):
    """The format of a file of jobs; AUTO is to guess it."""

    AUTO = "auto"
    JSONL = "jsonl"
    CSV = "csv"
    PLAIN = "plain"


class Entry(NamedTuple):
    """One job of a file: the body for its message, or the mistake in its line; or a comment. Lines count from 1."""

    line: int
    body: bytes = b""
    mistake: str = ""
    comment: str = ""


class Guess(NamedTuple):
    """The format guessed from a first line; `doubt` says why it may be wrong, "" where it is certain."""

    format: Format
    doubt: str = ""


def guess(file: BinaryIO) -> Guess:
    """Guess the format from the first line that is neither blank nor a comment.

    Raises:
        BadInput: it looks like a format that is not supported.
    """
    for number, line in _lines(file):
        text = line.decode("utf-8", "replace")
        if trimmed(text) and not is_comment(text):
            return _guess(number, trimmed(text))
    return Guess(Format.PLAIN)


def entries(file: BinaryIO, kind: Format) -> Iterator[Entry]:
    """Yield the jobs and comments of a file in any format but AUTO; blank lines are skipped.

    Raises:
        BadInput: it is no UTF-8 text, or it is CSV, and its header is wrong.
    """
    return _READERS[kind](_lines(file))


def _lines(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield each line with its number and line end, without a byte order mark; a line too long is cut.

    Raises:
        BadInput: it is UTF-16, by its mark or by the zero bytes of its first line.
    """
    for number, line in enumerate(lines_of(file), 1):
        if number == 1 and line.startswith(_UTF16):
            raise BadInput("line 1: this is UTF-16; save the file as UTF-8")
        if number == 1 and b"\0" in line:
            raise BadInput("line 1: this has zero bytes, as UTF-16 has; save the file as UTF-8")
        yield number, line.removeprefix(codecs.BOM_UTF8) if number == 1 else line


def _guess(number: int, text: str) -> Guess:
    if text.startswith("{"):
        return Guess(Format.JSONL)
    if text.startswith("["):
        raise BadInput(
            f"line {number}: this looks like a JSON array; write one object to a line, or choose a --format"
        )
    if _delimiter(text) is not None:
        return Guess(Format.CSV)
    letters = re.sub(r"[\s_|]", "", text).isalpha()
    if any(delimiter in text for delimiter in _DELIMITERS) or (letters and _BAR in text):
        raise BadInput(
            f"line {number}: {quote(text)} is no header with the column {ACCOUNT_COLUMN}; name that column so,"
            " or choose --format plain where whole lines are account numbers"
        )
    doubt = f"line {number}: {quote(text)} is taken for an account number" if letters else ""
    return Guess(Format.PLAIN, doubt)


def _json_lines(lines: Iterable[tuple[int, bytes]]) -> Iterator[Entry]:
    for number, line in lines:
        if len(line) > MAX_LINE:
            yield _too_long(number)
        elif (body := line.strip()).startswith(b"#"):
            yield _comment(number, body.decode(errors="replace"))
        elif body:
            yield Entry(number, body)


def _plain(lines: Iterable[tuple[int, bytes]]) -> Iterator[Entry]:
    for number, line in lines:
        if len(line) > MAX_LINE:
            yield _too_long(number)
            continue
        try:
            text = line.decode()
            account = account_of_line(text)
        except UnicodeDecodeError as error:
            yield Entry(number, mistake=f"is no UTF-8, found an invalid byte {error.start}")
        except ValueError as error:
            yield Entry(number, mistake=str(error))
        else:
            if is_comment(text):
                yield _comment(number, text)
            elif account:
                yield Entry(number, msgspec.json.encode({ACCOUNT_COLUMN: account}))


def _csv(lines: Iterable[tuple[int, bytes]]) -> Iterator[Entry]:
    text = _Text(lines)
    first = ""
    while not trimmed(first):
        yield from text.comments()
        if not (first := next(text, "")):
            return
    delimiter = _delimiter(first) or ","
    titles = _header(first, delimiter, text.row)
    rows = csv.reader(text, delimiter=delimiter, strict=True, skipinitialspace=True)
    while True:
        yield from text.comments()
        row, mistake = _next_row(rows)
        if mistake:
            yield Entry(text.row, mistake=f"is no CSV: {mistake}")
        elif row is None:
            return
        elif any(cells := [trimmed(cell) for cell in row]):
            yield _row(text.row, titles, cells)


def _next_row(rows: Iterator[list[str]]) -> tuple[list[str] | None, str]:
    """Return the next row, None at the end; or the mistake in it."""
    try:
        return next(rows, None), ""
    except csv.Error as error:
        return None, str(error)


class _Text:
    """Lines decoded, with bytes that are not UTF-8 as surrogates. `row` is the number of a row's first line.

    Raises:
        BadInput: a row goes on over several lines for longer than any job: most likely a quote is missing.
    """

    def __init__(self, lines: Iterable[tuple[int, bytes]]) -> None:
        self._lines = iter(lines)
        self._first: tuple[int, bytes] | None = None
        self._size = 0
        self.row = 0

    def comments(self) -> Iterator[Entry]:
        """Yield the comments ahead of the next row; to be called before each one."""
        for number, line in self._lines:
            text = _decoded(line)
            if not is_comment(text):
                self._first, self._size, self.row = (number, line), 0, number
                return
            yield _comment(number, text)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        number, line = self._first or next(self._lines)
        self._first = None
        self._size += len(line)
        if self._size > MAX_LINE and number > self.row:
            raise BadInput(
                f"line {self.row}: a row begins that has more than {MAX_LINE} bytes; is a quote missing?"
            )
        return _decoded(line)


def _decoded(line: bytes) -> str:
    return line.decode("utf-8", "surrogateescape")


def _delimiter(header: str) -> str | None:
    """Return the delimiter with which this header has an account number column, None where there is none."""
    for delimiter in _DELIMITERS + _BAR:
        if ACCOUNT_COLUMN in _cells(header, delimiter):
            return delimiter
    return None


def _cells(line: str, delimiter: str) -> list[str]:
    """Return the titles of a header, those of columns that jobs know in our spelling."""
    try:
        cells: list[str] = next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])
    except csv.Error:
        return []
    return [_COLUMNS.get(column_of(cell)) or trimmed(cell) for cell in cells]


def _header(line: str, delimiter: str, number: int) -> list[str]:
    cells = _cells(line, delimiter)
    if ACCOUNT_COLUMN not in cells:
        raise BadInput(
            f"line {number}: the header needs a column {ACCOUNT_COLUMN}, found {quote(line.strip())}"
        )
    if "" in cells:
        raise BadInput(f"line {number}: column {cells.index('') + 1} of the header has no name")
    if twice := sorted({cell for cell in cells if cells.count(cell) > 1}):
        raise BadInput(f"line {number}: the header has the column {quote(twice[0])} more than once")
    return cells


def _row(line: int, header: list[str], row: list[str]) -> Entry:
    if len(row) != len(header):
        return Entry(
            line, mistake=f"has {len(row)} cell{'s' * (len(row) != 1)} where the header has {len(header)}"
        )
    if [_COLUMNS.get(column_of(cell)) or cell for cell in row] == header:
        return Entry(line, mistake="is the header once more, as where files were joined")
    if any("\0" in cell for cell in row):
        return Entry(line, mistake="holds a zero byte")
    cells = dict(zip(header, row, strict=True))
    try:
        job: dict[str, object] = {ACCOUNT_COLUMN: account_of_cell(cells.pop(ACCOUNT_COLUMN))}
    except ValueError as error:
        return Entry(line, mistake=str(error))
    for name in JOB_COLUMNS:
        if value := cells.pop(name, ""):
            job[name] = value
    if cells:
        job["metadata"] = cells
    try:
        return Entry(line, msgspec.json.encode(job))
    except UnicodeEncodeError:
        return Entry(line, mistake="is no UTF-8")


def _comment(line: int, text: str) -> Entry:
    return Entry(line, comment=quote(trimmed(text)))


def _too_long(line: int) -> Entry:
    return Entry(line, mistake=f"is longer than {MAX_LINE} bytes")


_READERS = {Format.JSONL: _json_lines, Format.CSV: _csv, Format.PLAIN: _plain}
