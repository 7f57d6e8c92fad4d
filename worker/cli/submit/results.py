"""Results: read from messages, written as JSON lines or CSV. Pure."""

from __future__ import annotations

import csv
import errno
import io
import json
from collections.abc import Iterable, Iterator
from enum import Enum
from pathlib import Path

import msgspec

from worker.common.text import quote

COLUMNS = (
    "job_id",
    "account_number",
    "status",
    "outcomes",
    "outcome_id",
    "outcome_code",
    "outcome_description",
    "error_code",
    "error_message",
    "attempts",
    "duration_ms",
    "completed_at",
    "metadata",
)
LONGEST_ROW = 16 * 1024 * 1024
"""Bytes of a row of CSV. Where a quote is missing, all that follows looks like one row, so that reading has an end."""

_GUARD = "'"
# What a spreadsheet takes for the beginning of a formula, full width too; and the guard, so that it can be taken off.
_TO_GUARD = frozenset("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20" + _GUARD)


class OutputFormat(Enum):
    """The format that results are written in."""

    JSONL = "jsonl"
    CSV = "csv"
    CSV_SAFE = "csv-safe"
    """CSV in which no cell is one that a spreadsheet would carry out."""

    @property
    def is_csv(self) -> bool:
        """Whether it has rows and cells."""
        return self is not OutputFormat.JSONL


class _Outcome(msgspec.Struct):
    id: str
    code: str
    description: str


class _Error(msgspec.Struct):
    code: str
    message: str


class Result(msgspec.Struct):
    """The fields of a result that are written or counted; `body` is the whole of it."""

    job_id: str
    account_number: str | None
    status: str
    attempts: int
    completed_at: str
    duration_ms: float
    outcomes: tuple[_Outcome, ...] = ()
    error: _Error | None = None
    metadata: msgspec.Raw = msgspec.Raw(b"{}")
    body: msgspec.Raw = msgspec.Raw()


_DECODER = msgspec.json.Decoder(Result)


def read_result(body: bytes) -> Result | None:
    """Read a result; None where the message is none: anybody may publish to the exchange.

    With a key twice it is none either: which of them counts depends on who reads it. In metadata keys may be repeated.
    """
    try:
        # The decoder leaves out what it keeps raw and what it ignores.
        text = body.decode()
        result = _DECODER.decode(body)
        if _has_repeated_key(text):
            return None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    result.body = msgspec.Raw(body)
    return result


def _has_repeated_key(text: str) -> bool:
    """Tell whether the outermost object has a key twice, however it is spelled."""
    # Integers as text: Python refuses to read those of thousands of digits.
    keys = json.loads(text, object_pairs_hook=_keys, parse_int=str)
    return len(set(keys)) < len(keys)


def _keys(pairs: list[tuple[str, object]]) -> list[str]:
    return [key for key, _ in pairs]


def format_of(path: str, chosen: OutputFormat | None) -> OutputFormat:
    """Return the format to write a file in: the chosen one, else that of its suffix.

    Raises:
        ValueError: none was chosen, and the suffix is none of a format.
    """
    if chosen is not None:
        return chosen
    suffixes = {".csv": OutputFormat.CSV, ".jsonl": OutputFormat.JSONL, ".ndjson": OutputFormat.JSONL}
    if (suffix := Path(path).suffix.lower()) in suffixes:
        return suffixes[suffix]
    raise ValueError(f"{path} ends in none of {', '.join(suffixes)}; choose an --output-format")


def encoded(results: Iterable[Result], kind: OutputFormat) -> bytes:
    """Write results as lines of JSON, or as rows of CSV.

    Raises:
        OSError: a row would be longer than `LONGEST_ROW`, and could not be read back.
    """
    if kind.is_csv:
        guard = _guarded if kind is OutputFormat.CSV_SAFE else tuple
        return b"".join(_rows(result, map(guard, rows_of(result))) for result in results)
    return b"".join(_one_line(bytes(result.body)) for result in results)


def rows_of(result: Result) -> Iterator[tuple[object, ...]]:
    """Yield the CSV rows of a result: one for each outcome, or one where it has none. Metadata are one cell of JSON."""
    error = (result.error.code, result.error.message) if result.error is not None else ("", "")
    metadata = bytes(result.metadata).decode()
    end = (*error, result.attempts, result.duration_ms, result.completed_at, metadata)
    start = (result.job_id, result.account_number or "", result.status, len(result.outcomes))
    if not result.outcomes:
        yield (*start, "", "", "", *end)
    for outcome in result.outcomes:
        yield (*start, outcome.id, outcome.code, outcome.description, *end)


def _rows(result: Result, rows: Iterable[tuple[object, ...]]) -> bytes:
    written = [_csv([row]) for row in rows]
    if max(map(len, written)) > LONGEST_ROW:
        raise OSError(
            errno.EFBIG,
            f"a row of job {quote(result.job_id)} would have more than {LONGEST_ROW:,} bytes; collect it with an"
            " --output of JSON lines (.jsonl)",
        )
    return b"".join(written)


def unguarded(cell: str) -> str:
    """Return what stood in a cell before it was guarded."""
    return cell.removeprefix(_GUARD)


def _guarded(row: tuple[object, ...]) -> tuple[object, ...]:
    return tuple(_GUARD + cell if isinstance(cell, str) and cell[:1] in _TO_GUARD else cell for cell in row)


def _csv(rows: Iterable[tuple[object, ...]]) -> bytes:
    text = io.StringIO(newline="")
    # The line ends of RFC 4180; with them the library quotes a lone carriage return, too.
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    return text.getvalue().encode()


HEADER = _csv([COLUMNS])
"""The first line of CSV."""


def _one_line(body: bytes) -> bytes:
    # Metadata are echoed as they were written, which may span lines; in JSON line ends only separate values.
    return body.replace(b"\r", b" ").replace(b"\n", b" ") + b"\n"
