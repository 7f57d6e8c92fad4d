"""What a file of results holds already: the jobs that are whole in it, and whether it ends in mid-result."""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

import msgspec

from worker.cli.submit.jobs import digest
from worker.cli.submit.results import COLUMNS, HEADER, LONGEST_ROW, OutputFormat, read_result, unguarded
from worker.common.text import quote

_MEND = "mend the file, or name another one"
_ROWS = COLUMNS.index("outcomes")
_COUNT = re.compile("[0-9]{1,9}")
_NO_UTF8 = re.compile("[\ud800-\udfff]")  # what is no UTF-8 is decoded as lone surrogates
_JSON_START = b'{"job_id":"'
_JSON_ID = re.compile(rb'\{"job_id":"([^"\\]*)')


@dataclass(frozen=True)
class Held:
    """What a file holds.

    Attributes:
        jobs: the digests of the ids of jobs whose result is whole.
        size: how many bytes to keep.
        torn: where a result is broken off behind them: the beginning of its job's id, as far as it is there.
        lacks: the end of the last line, where it is missing.
        gap: says which result has too few rows before the end of the file, "" where none has.
    """

    jobs: frozenset[bytes] = frozenset()
    size: int = 0
    torn: str | None = None
    lacks: bytes = b""
    gap: str = ""


def held_in(file: BinaryIO, kind: OutputFormat) -> Held:
    """Read a file of results from its beginning.

    A process that was killed, or a full disk, leaves a result in part at the end: a line of JSON without its end, or
    less rows of CSV than the result has outcomes. That was not acknowledged, so it comes again.

    Raises:
        ValueError: it is no file of results, or garbled before its end; the text says in which line.
        OSError: it can't be read.
    """
    if not kind.is_csv:
        return _json_lines(file)
    return _Rows(unguarded if kind is OutputFormat.CSV_SAFE else str).read(file)


def _json_lines(file: BinaryIO) -> Held:
    jobs: set[bytes] = set()
    size = 0
    for number, line in enumerate(file, 1):
        result = read_result(line)
        ended = line.endswith(b"\n")
        if result is not None:
            jobs.add(digest(result.job_id))
        elif not ended and line.startswith(_JSON_START[: len(line)]):
            match = _JSON_ID.match(line)
            return Held(frozenset(jobs), size, match[1].decode(errors="ignore") if match else "")
        elif line.strip() and not _is_json(line):
            raise ValueError(f"line {number} is no JSON; {_MEND}")
        size += len(line)
        if not ended:
            return Held(frozenset(jobs), size, lacks=b"\n")
    return Held(frozenset(jobs), size)


def _is_json(text: bytes | str) -> bool:
    try:
        msgspec.json.decode(text, type=msgspec.Raw)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return False
    return True


@dataclass
class _Missing:
    """A job of which rows are missing still."""

    job_id: str
    rows: int
    left: int


@dataclass
class _Rows:
    """Reads rows of CSV. A result has a row for each outcome, one at least; each row says how many outcomes it has."""

    id_of: Callable[[str], str]  # the first cell as it was before it was written
    whole: set[bytes] = field(default_factory=set)
    missing: dict[bytes, _Missing] = field(default_factory=dict)
    size: int = 0
    last: str = ""  # the job of the last row
    last_start: int = 0  # where its rows begin

    def read(self, file: BinaryIO) -> Held:
        torn, lacks = None, b""
        for number, row, ended in _rows_in(file):
            cells = _cells(row)
            if not self.size:
                if HEADER.startswith(row):
                    lacks = HEADER[len(row) :]
                    self.size = len(row)
                    continue
                _check_header(number, row.removeprefix(codecs.BOM_UTF8))
            elif not ended and not _only_lacks_its_end(row, cells):
                torn = self.id_of(_torn(number, row, cells))
                break
            elif row.strip():
                self._add(number, cells)
            self.size += len(row)
            lacks = b"" if ended else b"\n" if row.endswith(b"\r") else b"\r\n"
        return self._held(torn, lacks)

    def _add(self, number: int, cells: list[str]) -> None:
        if not _is_row(cells):
            raise ValueError(f"line {number} is no row of a result with {len(COLUMNS)} cells; {_MEND}")
        job_id, rows = self.id_of(cells[0]), max(1, int(cells[_ROWS]))
        if job_id != self.last or digest(job_id) not in self.missing:
            self.last, self.last_start = job_id, self.size
        missing = self.missing.setdefault(digest(job_id), _Missing(job_id, rows, rows))
        missing.left -= 1
        if not missing.left:
            del self.missing[digest(job_id)]
            self.whole.add(digest(job_id))

    def _held(self, torn: str | None, lacks: bytes) -> Held:
        size = self.size
        if (torn is None or self.last.startswith(torn)) and digest(self.last) in self.missing:
            del self.missing[digest(self.last)]
            torn, size, lacks = self.last, self.last_start, b""
        gap = next(
            (
                f"{one.rows - one.left} of {one.rows} rows of job {quote(one.job_id)}"
                for one in self.missing.values()
            ),
            "",
        )
        return Held(frozenset(self.whole), size, torn, lacks, gap)


def _rows_in(file: BinaryIO) -> Iterator[tuple[int, bytes, bool]]:
    """Yield each row with the number of its first line, and whether it has an end: no line end in a quote is one."""
    parts: list[bytes] = []
    first, length, quotes = 1, 0, 0
    for number, line in enumerate(file, 1):
        parts.append(line)
        length += len(line)
        quotes += line.count(b'"')
        if length > LONGEST_ROW:
            raise ValueError(f"line {first} begins a row that does not end; {_MEND}")
        if quotes % 2 == 0:
            yield first, b"".join(parts), line.endswith(b"\n")
            parts, first, length = [], number + 1, 0
    if parts:
        yield first, b"".join(parts), False


def _cells(row: bytes) -> list[str]:
    usual = csv.field_size_limit(LONGEST_ROW)  # a description may be as long as LCM's largest reply
    try:
        return next(csv.reader([row.decode(errors="surrogateescape")]), [])
    except csv.Error:
        return []
    finally:
        csv.field_size_limit(usual)


def _is_row(cells: list[str]) -> bool:
    """Tell whether it has all cells, a count of outcomes among them, and a job id that is text."""
    return (
        len(cells) == len(COLUMNS) and bool(_COUNT.fullmatch(cells[_ROWS])) and not _NO_UTF8.search(cells[0])
    )


def _only_lacks_its_end(row: bytes, cells: list[str]) -> bool:
    return row.count(b'"') % 2 == 0 and _is_row(cells) and _is_json(cells[-1])


def _check_header(number: int, row: bytes) -> None:
    if tuple(_cells(row)) != COLUMNS:
        found = quote(row.decode(errors="replace").strip())
        raise ValueError(f"line {number} is not the header of results, found {found}; name another file")


def _torn(number: int, row: bytes, cells: list[str]) -> str:
    """Return the beginning of the job's id in a row that is broken off."""
    # Without its closing quote, a row that was garbled long ago takes in all rows behind it.
    if any(line.count(b'"') % 2 == 0 and _is_row(_cells(line)) for line in row.split(b"\n")[1:-1]):
        raise ValueError(f"line {number} is broken off, but others follow; {_MEND}")
    return cells[0].encode(errors="ignore").decode() if cells else ""
