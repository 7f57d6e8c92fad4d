"""Parses files of jobs: JSON lines, CSV with a header, or plain account numbers, one to a line. Pure.

Only the current line is in memory, however long the file is. A line that can't be parsed becomes an entry with the
mistake.
"""

from __future__ import annotations

import codecs
import csv
from collections.abc import Iterable, Iterator
from enum import Enum
from typing import BinaryIO, NamedTuple

import msgspec

from worker.common.text import quote
from worker.contract.errors import WorkerError
from worker.contract.job import MAX_BODY

MAX_LINE = 2 * MAX_BODY
"""Bytes of a line; no job that fits into a message needs more."""

ACCOUNT_COLUMN = "account_number"
JOB_COLUMNS = ("job_id", "route", "deadline")
_DELIMITERS = ",;\t"
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
    """One job of a file: the body for its message, or the mistake in its line. Lines count from 1."""

    line: int
    body: bytes = b""
    mistake: str = ""


class Guess(NamedTuple):
    """The format guessed from a first line; `doubt` says why it may be wrong, "" where it is certain."""

    format: Format
    doubt: str = ""


def guess(file: BinaryIO) -> Guess:
    """Guess the format from the first line that isn't blank.

    Raises:
        BadInput: it looks like a format that is not supported.
    """
    for number, line in _lines(file):
        if not line.strip():
            continue
        return _guess(number, line)
    return Guess(Format.PLAIN)


def entries(file: BinaryIO, kind: Format) -> Iterator[Entry]:
    """Yield the jobs of a file in any format but AUTO; blank lines are skipped.

    Raises:
        BadInput: it is CSV, and its header is wrong.
    """
    return _READERS[kind](_lines(file))


def _lines(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield each line with its number and line end, without a byte order mark; a line too long is cut."""
    number = 0
    while line := file.readline(MAX_LINE + 1):
        number += 1
        rest = line
        while rest and not rest.endswith(b"\n") and len(line) > MAX_LINE:
            rest = file.readline(MAX_LINE)
        yield number, line.removeprefix(codecs.BOM_UTF8) if number == 1 else line


def _guess(number: int, line: bytes) -> Guess:
    if line.startswith(_UTF16):
        raise BadInput(f"line {number}: this is UTF-16; save the file as UTF-8")
    text = line.decode("utf-8", "replace").strip()
    if text.startswith("{"):
        return Guess(Format.JSONL)
    if text.startswith("["):
        raise BadInput(
            f"line {number}: this looks like a JSON array; write one object to a line, or choose a --format"
        )
    if _delimiter(text) is not None:
        return Guess(Format.CSV)
    if any(delimiter in text for delimiter in _DELIMITERS):
        raise BadInput(
            f"line {number}: {quote(text)} is no header with the column {ACCOUNT_COLUMN}; name that column so,"
            " or choose --format plain where whole lines are account numbers"
        )
    letters = text.isalpha() or text.replace("_", "").replace(" ", "").isalpha()
    doubt = f"line {number}: {quote(text)} is taken for an account number" if letters else ""
    return Guess(Format.PLAIN, doubt)


def _json_lines(lines: Iterable[tuple[int, bytes]]) -> Iterator[Entry]:
    for number, line in lines:
        if len(line) > MAX_LINE:
            yield _too_long(number)
        elif body := line.strip():
            yield Entry(number, body)


def _plain(lines: Iterable[tuple[int, bytes]]) -> Iterator[Entry]:
    for number, line in lines:
        if len(line) > MAX_LINE:
            yield _too_long(number)
        elif line.strip():
            try:
                account = line.rstrip(b"\r\n").decode()
            except UnicodeDecodeError as error:
                yield Entry(number, mistake=f"is no UTF-8, found an invalid byte {error.start}")
            else:
                yield Entry(number, msgspec.json.encode({ACCOUNT_COLUMN: account}))


def _csv(lines: Iterable[tuple[int, bytes]]) -> Iterator[Entry]:
    text = _Text(lines)
    first = next((line for line in text if line.strip()), None)
    if first is None:
        return
    delimiter = _delimiter(first) or ","
    header = _header(first, delimiter, text.number)
    rows = csv.reader(text, delimiter=delimiter, strict=True)
    while True:
        started = text.number + 1
        try:
            row = next(rows, None)
        except csv.Error as error:
            yield Entry(started, mistake=f"is no CSV: {error}")
            continue
        if row is None:
            return
        if row:
            yield _row(started, header, row)


class _Text:
    """Lines decoded, with bytes that are not UTF-8 as surrogates; `number` is that of the last line read."""

    def __init__(self, lines: Iterable[tuple[int, bytes]]) -> None:
        self._lines = iter(lines)
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        self.number, line = next(self._lines)
        return line.decode("utf-8", "surrogateescape")


def _delimiter(header: str) -> str | None:
    """Return the delimiter with which this header has an account number column, None where there is none."""
    for delimiter in _DELIMITERS:
        if ACCOUNT_COLUMN in _cells(header, delimiter):
            return delimiter
    return None


def _cells(line: str, delimiter: str) -> list[str]:
    try:
        return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter), [])]
    except csv.Error:
        return []


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
    cells = dict(zip(header, row, strict=True))
    job: dict[str, object] = {ACCOUNT_COLUMN: cells.pop(ACCOUNT_COLUMN)}
    for name in JOB_COLUMNS:
        if value := cells.pop(name, ""):
            job[name] = value
    if cells:
        job["metadata"] = cells
    try:
        return Entry(line, msgspec.json.encode(job))
    except UnicodeEncodeError:
        return Entry(line, mistake="is no UTF-8")


def _too_long(line: int) -> Entry:
    return Entry(line, mistake=f"is longer than {MAX_LINE} bytes")


_READERS = {Format.JSONL: _json_lines, Format.CSV: _csv, Format.PLAIN: _plain}
