"""Results: read from messages and from files, written as JSON lines or CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from enum import Enum
from pathlib import Path
from typing import Protocol

import msgspec

COLUMNS = (
    "job_id",
    "account_number",
    "status",
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


class OutputFormat(Enum):
    """The format that results are written in."""

    JSONL = "jsonl"
    CSV = "csv"


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
    """Read a result; None where the message is none: anybody may publish to the exchange."""
    try:
        result = _DECODER.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    result.body = msgspec.Raw(body)
    return result


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


class Unbuffered(Protocol):
    """A file whose writes reach the operating system at once, be it in part."""

    def write(self, data: memoryview, /) -> int: ...


class ResultWriter:
    """Writes results to a file without a buffer: each call writes a whole batch, at once where the file takes it so."""

    def __init__(self, file: Unbuffered, kind: OutputFormat, *, header: bool) -> None:
        self._file = file
        self._kind = kind
        self._header = header

    def begin(self) -> None:
        """Write what comes before the first result: in CSV the header, if there is to be one."""
        if self._header and self._kind is OutputFormat.CSV:
            self._send(_csv([COLUMNS]))

    def write(self, results: Sequence[Result]) -> None:
        """Write results, and return once the operating system has them. Raises OSError."""
        if self._kind is OutputFormat.CSV:
            self._send(_csv(row for result in results for row in rows_of(result)))
        else:
            self._send(b"".join(_one_line(bytes(result.body)) for result in results))

    def _send(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            left = left[self._file.write(left) :]


def job_ids_in(path: Path, kind: OutputFormat) -> Iterator[str]:
    """Yield the job id of each row or line of a file of results; those that are no results are skipped.

    An id may come more than once. Raises OSError.
    """
    if kind is OutputFormat.CSV:
        with path.open(encoding="utf-8", errors="replace", newline="") as file:
            yield from (row["job_id"] for row in csv.DictReader(file) if row.get("job_id"))
        return
    with path.open("rb") as lines:
        yield from (result.job_id for line in lines if (result := read_result(line)) is not None)


def rows_of(result: Result) -> Iterator[tuple[object, ...]]:
    """Yield the CSV rows of a result: one for each outcome, or one where it has none. Metadata are one cell of JSON."""
    error = (result.error.code, result.error.message) if result.error is not None else ("", "")
    metadata = bytes(result.metadata).decode()
    end = (*error, result.attempts, result.duration_ms, result.completed_at, metadata)
    start = (result.job_id, result.account_number or "", result.status)
    if not result.outcomes:
        yield (*start, "", "", "", *end)
    for outcome in result.outcomes:
        yield (*start, outcome.id, outcome.code, outcome.description, *end)


def _csv(rows: Iterator[tuple[object, ...]] | Sequence[tuple[object, ...]]) -> bytes:
    text = io.StringIO(newline="")
    # The line ends of RFC 4180; with them the library quotes a lone carriage return, too.
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    return text.getvalue().encode()


def _one_line(body: bytes) -> bytes:
    # Metadata are echoed as they were written, which may span lines; in JSON line ends only separate values.
    return body.replace(b"\r", b" ").replace(b"\n", b" ") + b"\n"
