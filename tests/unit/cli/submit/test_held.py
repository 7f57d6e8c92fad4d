"""What a file of results holds, wherever a process was killed that wrote it, and whatever was done to it since."""

from __future__ import annotations

import csv
import io
from collections import Counter
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.cli.submit.held import Held, held_in
from worker.cli.submit.jobs import digest
from worker.cli.submit.results import COLUMNS, HEADER, OutputFormat, Result, encoded, read_result

CSV, JSONL = OutputFormat.CSV, OutputFormat.JSONL
TEXT = st.text(st.sampled_from('ab,"\r\n;é\\'), max_size=4)
OUTCOME = st.fixed_dictionaries({"id": TEXT, "code": TEXT, "description": TEXT})


def result(job_id: str, outcomes: int | list[dict[str, str]] = 3, **fields: Any) -> Result:
    if isinstance(outcomes, int):
        outcomes = [{"id": str(n), "code": "c", "description": 'a "d", or\ntwo'} for n in range(outcomes)]
    body = {
        "job_id": job_id, "account_number": "1|1", "status": "succeeded", "outcomes": outcomes, "attempts": 1,
        "completed_at": "2026-01-31T12:00:00.000Z", "duration_ms": 8.2, "metadata": {"n": 'x "y"'},
    }  # fmt: skip
    read = read_result(msgspec.json.encode(body | fields))
    assert read is not None
    return read


def written(results: list[Result], kind: OutputFormat) -> bytes:
    return (HEADER if kind.is_csv else b"") + encoded(results, kind)


def held(data: bytes, kind: OutputFormat = CSV) -> Held:
    return held_in(io.BytesIO(data), kind)


def records(data: bytes, kind: OutputFormat) -> Counter[tuple[str, ...]]:
    """Return each row or line that a reader finds."""
    text = data.decode()
    if kind.is_csv:
        return Counter(map(tuple, csv.reader(io.StringIO(text, newline=""))))
    return Counter((line,) for line in text.splitlines() if msgspec.json.decode(line))


def mended(data: bytes, found: Held, kind: OutputFormat) -> bytes:
    """Return a file as the writer goes on with it."""
    kept = data[: found.size] if found.torn is not None else data
    return kept + found.lacks + (HEADER if kind.is_csv and not found.size else b"")


def check_cut(results: list[Result], kind: OutputFormat, end: int) -> None:
    """Cut a file there, collect what is not held, and compare with the whole file."""
    whole = written(results, kind)
    found = held(whole[:end], kind)
    again = [one for one in results if digest(one.job_id) not in found.jobs]
    assert records(mended(whole[:end], found, kind) + encoded(again, kind), kind) == records(whole, kind)
    assert not found.gap
    if found.torn is not None:
        assert again[0].job_id.startswith(found.torn)


@pytest.mark.parametrize("kind", OutputFormat)
def test_wherever_it_was_cut_each_result_is_there_once(kind: OutputFormat) -> None:
    """Cut at any byte, a file is gone on with from its last whole result; those that lack come again."""
    results = [result("a"), result('b,"\n', 0), result("ab", 1), result("=c", 2), result("'d")]
    for end in range(len(written(results, kind)) + 1):
        check_cut(results, kind, end)


@settings(max_examples=300)
@given(
    st.dictionaries(TEXT.filter(bool), st.lists(OUTCOME, max_size=3), max_size=4),
    st.sampled_from(OutputFormat),
    st.floats(0, 1),
)
def test_whatever_it_holds_each_result_is_there_once(
    jobs: dict[str, list[dict[str, str]]], kind: OutputFormat, part: float
) -> None:
    """The same for any texts, with quotes, commas and line ends in them."""
    results = [result(job_id, outcomes) for job_id, outcomes in jobs.items()]
    check_cut(results, kind, round(part * len(written(results, kind))))


@given(st.binary(max_size=300), st.sampled_from(OutputFormat), st.booleans())
def test_any_bytes_are_held_or_told(data: bytes, kind: OutputFormat, behind: bool) -> None:
    """Whatever a file holds, alone or behind results, is understood or is one ValueError."""
    with suppress(ValueError):
        held((written([result("a")], kind) if behind else b"") + data, kind)


@pytest.mark.parametrize("kind", OutputFormat)
def test_a_whole_file_is_whole(kind: OutputFormat) -> None:
    """Nothing is missing or cut where each result is complete, be it twice; an empty file holds nothing."""
    data = written([result("a"), result("b"), result("a")], kind)
    assert held(data, kind) == Held(frozenset({digest("a"), digest("b")}), len(data))
    assert held(b"", kind) == Held()


def test_a_long_description_is_read_back() -> None:
    """What LCM may tell is written, so it is read: longer than the limit of Python's reader, which stays as it was."""
    limit = csv.field_size_limit()
    long = result("a", [{"id": "1", "code": "c", "description": "x" * (limit + 1)}])
    data = written([long], CSV)
    assert held(data) == Held(frozenset({digest("a")}), len(data))
    assert csv.field_size_limit() == limit


def test_rows_in_another_order_are_whole() -> None:
    """A file that was sorted since holds the same jobs, also with a byte order mark and other line ends."""
    text = encoded([result("a", 2), result("b", 2)], CSV).decode()
    rows = sorted(csv.reader(io.StringIO(text, newline="")), key=lambda cells: cells[4])
    again = io.StringIO(newline="")
    csv.writer(again, lineterminator="\n").writerows([COLUMNS, *rows])
    data = b"\xef\xbb\xbf" + again.getvalue().encode()
    assert held(data) == Held(frozenset({digest("a"), digest("b")}), len(data))


def test_a_result_with_too_few_rows_before_the_end_is_told() -> None:
    """Rows that lack before the end were not lost by a torn write: nothing is cut off there, but it is told."""
    two_rows = (
        encoded([result("a", 3, metadata={})], CSV).replace(b"\ntwo", b"").splitlines(keepends=True)[:2]
    )
    found = held(HEADER + b"".join(two_rows) + encoded([result("b")], CSV))
    assert (found.gap, found.torn) == ("2 of 3 rows of job 'a'", None)
    assert found.jobs == {digest("b")}


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"account,name\r\n1,x\r\n", "line 1 is not the header of results, found 'account,name'"),
        (encoded([result("a")], CSV), "line 1 is not the header of results"),
        (HEADER.replace(b"outcomes,", b""), "line 1 is not the header of results"),
        (HEADER.replace(b",", b";"), "line 1 is not the header of results"),
        (HEADER.decode().encode("utf-16"), "line 1 is not the header of results"),
        (HEADER + b"total: 5\r\n", "line 2 is no row of a result with 13 cells"),
        (HEADER + b"\xff" + encoded([result("a", 0)], CSV), "line 2 is no row of a result with 13 cells"),
        (HEADER + encoded([result("a", 0)], CSV).replace(b",0,", b"," + b"1" * 5000 + b","), "line 2 is no row"),
        (HEADER + encoded([result("a", 0)], CSV)[:20] + encoded([result("b", 0)], CSV), "line 2 is no row"),
        (HEADER + b'a,"1|1' + encoded([result("b", 0, metadata={})] * 2, CSV), "line 2 is broken off, but others"),
        (HEADER + b'"' + b"x" * 2**24 + b"\n", "line 2 begins a row that does not end"),
    ],
)  # fmt: skip
def test_what_is_no_file_of_results_is_told(data: bytes, told: str) -> None:
    """Another header, no header, a garbled row: each is told with its line, and nothing is cut."""
    with pytest.raises(ValueError, match=told):
        held(data)


def test_lines_that_are_no_json_are_told() -> None:
    """Among lines of JSON, those of others pass; one that is no JSON, or no beginning of a result, is told."""
    good = encoded([result("a")], JSONL)
    assert held(b'{"total": 5}\n\n' + good, JSONL).jobs == {digest("a")}
    with pytest.raises(ValueError, match="line 2 is no JSON"):
        held(good + b'{"job_id":"b","acc' + good, JSONL)
    with pytest.raises(ValueError, match="line 2 is no JSON"):
        held(good + b"total: 5", JSONL)
