"""Results written as JSON lines and CSV, and the numbers of a run."""

from __future__ import annotations

import csv
import io
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.cli.submit.held import held_in
from worker.cli.submit.jobs import InputJob, digest
from worker.cli.submit.reading import Format
from worker.cli.submit.results import (
    COLUMNS,
    HEADER,
    LONGEST_ROW,
    OutputFormat,
    Result,
    encoded,
    format_of,
    read_result,
    unguarded,
)
from worker.cli.submit.sources import Source
from worker.cli.submit.tally import Collected, Published

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
OUTCOME = st.fixed_dictionaries({"id": TEXT, "code": TEXT, "description": TEXT})


def result(job_id: str = "j", *, error: str = "", **fields: Any) -> Result:
    body: dict[str, Any] = {
        "job_id": job_id, "account_number": "1|1", "status": "succeeded", "outcomes": [], "attempts": 1,
        "completed_at": "2026-01-31T12:00:00.000Z", "duration_ms": 8.2,
    }  # fmt: skip
    if error:
        body |= {
            "status": "failed",
            "error": {"code": error, "message": f"it is {error}", "transient": False},
        }
    read = read_result(msgspec.json.encode(body | fields))
    assert read is not None
    return read


def written(kind: OutputFormat, *results: Result) -> bytes:
    return (HEADER if kind.is_csv else b"") + encoded(results, kind)


@pytest.mark.parametrize("kind", [OutputFormat.CSV, OutputFormat.CSV_SAFE])
def test_no_row_is_written_that_could_not_be_read_back(kind: OutputFormat) -> None:
    """A row of the largest size is; for a larger one JSON lines are named, which have no bound."""

    def with_room(size: int) -> Result:
        return result("big", outcomes=[{"id": "0", "code": "", "description": "d" * size}])

    most = LONGEST_ROW - len(encoded([with_room(0)], kind))
    assert held_in(io.BytesIO(written(kind, with_room(most))), kind).jobs == {digest("big")}
    with pytest.raises(OSError, match=r"job 'big' would have more than 16,777,216 bytes.*\.jsonl"):
        encoded([result(), with_room(most + 1)], kind)
    lines = OutputFormat.JSONL
    assert held_in(io.BytesIO(written(lines, with_room(most + 1))), lines).jobs == {digest("big")}


@given(st.lists(st.tuples(TEXT, st.lists(OUTCOME, min_size=1, max_size=3)), max_size=3))
def test_csv_has_a_row_for_each_outcome(given_results: list[tuple[str, list[dict[str, str]]]]) -> None:
    """Whatever texts a result holds, a CSV reader gets them back: one row for each account and outcome."""
    results = [result("j", account_number=account, outcomes=found) for account, found in given_results]
    text = written(OutputFormat.CSV, *results).decode()
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [(row["account_number"], row["outcome_id"], row["outcome_description"]) for row in rows] == [
        (account, one["id"], one["description"]) for account, found in given_results for one in found
    ]


def test_csv_has_a_row_for_what_has_no_outcome() -> None:
    """A failed job and an empty list are one row each, with empty outcome columns; the header names all columns."""
    lines = written(OutputFormat.CSV, result("a"), result("b", error="timeout", account_number=None))
    rows = list(csv.reader(io.StringIO(lines.decode())))
    assert tuple(rows[0]) == COLUMNS
    end = ["1", "8.2", "2026-01-31T12:00:00.000Z", "{}"]
    assert rows[1] == ["a", "1|1", "succeeded", "0", "", "", "", "", "", *end]
    assert rows[2] == ["b", "", "failed", "0", "", "", "", "timeout", "it is timeout", *end]


def test_csv_keeps_the_metadata() -> None:
    """What the job's producer wanted back stands in the last cell, as JSON."""
    lines = written(OutputFormat.CSV, result("a", metadata={"campaign": "spring", "n": [1, 2]}))
    [_, row] = csv.reader(io.StringIO(lines.decode()))
    assert msgspec.json.decode(row[-1]) == {"campaign": "spring", "n": [1, 2]}


def test_json_lines_are_the_bodies() -> None:
    """As JSON lines, each result is its body, on one line even where the metadata has several."""
    body = msgspec.json.encode(
        {"job_id": "j", "account_number": "1", "status": "succeeded", "attempts": 1, "completed_at": "",
         "duration_ms": 1.0, "metadata": msgspec.Raw(b'{\r\n"a": "b"}')}
    )  # fmt: skip
    read = read_result(body)
    assert read is not None
    line = written(OutputFormat.JSONL, read)
    assert line.count(b"\n") == 1
    assert msgspec.json.decode(line) == msgspec.json.decode(body)


def body_with(rest: bytes) -> bytes:
    """Return the body of a result, with more at its end."""
    return bytes(result("a").body)[:-1] + b"," + rest + b"}"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"\xff",
        b"[" * 100_000,
        b'{"job_id":1}',
        body_with(b'"metadata":{"a":"\xff"}'),
        body_with(b'"other":"\xff"'),
        body_with(b'"job_id":"b"'),
        body_with(b'"account_number":"2|2"'),
        body_with(b'"\\u006aob_id":"b"'),
        body_with(b'"status":"failed"'),
    ],
)
def test_what_is_no_result_is_none(body: bytes) -> None:
    """Whatever somebody else publishes to the exchange is no result, and no error either."""
    assert read_result(body) is None


def test_metadata_may_have_a_key_twice() -> None:
    """What a producer wants back is echoed as it was written; in it keys may be those of a result, and any number."""
    metadata = b'{"job_id":1,"job_id":{"account_number":' + b"9" * 5000 + b',"account_number":[]}}'
    read = read_result(body_with(b'"metadata":' + metadata))
    assert read is not None
    assert bytes(read.metadata) == metadata


def test_the_suffix_tells_the_format() -> None:
    """A chosen format wins over the suffix, and a suffix that tells none is refused."""
    assert format_of("a.CSV", None) is OutputFormat.CSV
    assert format_of("a.ndjson", None) is OutputFormat.JSONL
    assert format_of("a.csv", OutputFormat.JSONL) is OutputFormat.JSONL
    with pytest.raises(ValueError, match="ends in none of"):
        format_of("a.json", None)


def test_a_repeat_and_a_strangers_result_are_not_counted() -> None:
    """The first result of an expected job counts; its repeat and other jobs' results do not."""
    collected = Collected()
    collected.expect("a", "1|1")
    collected.expect("b", "1|1")
    accepted = [
        collected.accept(one) for one in (result("a"), result("a"), result("x"), result("b", error="timeout"))
    ]
    assert accepted == [True, False, False, True]
    assert (collected.succeeded, collected.failed, collected.missing, collected.count) == (
        1,
        {"timeout": 1},
        0,
        2,
    )
    assert collected.misnamed == 0


@pytest.mark.parametrize("account", ["2|2", "1|1 ", "", None])
def test_a_result_of_another_account_is_none_of_the_job(account: str | None) -> None:
    """Under the id of an expected job, a result that names another account, or none, is counted apart and left out."""
    collected = Collected()
    collected.expect("a", "1|1")
    assert [collected.accept(result("a", account_number=account)) for _ in range(2)] == [False, False]
    assert (collected.misnamed, collected.count, collected.missing, collected.first_results) == (2, 0, 1, [])
    assert collected.accept(result("a"))
    assert (collected.misnamed, collected.count, collected.missing) == (2, 1, 0)


@pytest.mark.parametrize("forged", [1e308, -1e308, 366 * 86_400_000.1])
def test_a_duration_that_none_can_be_is_not_the_slowest(forged: float) -> None:
    """Of results the slowest is told, but no duration that no job can have taken, whatever was published."""
    collected = Collected()
    for job_id, duration in (("a", 8.2), ("b", forged)):
        collected.expect(job_id, "1|1")
        assert collected.accept(result(job_id, duration_ms=duration))
    assert collected.slowest == (8.2, "a")


def test_lines_published_for_sure_end_before_the_first_in_doubt() -> None:
    """The line to go on from is the first that was not confirmed, however many behind it were."""
    sources = [Source(name, name, Format.PLAIN, io.BytesIO) for name in ("a b.csv", "c.csv")]
    jobs = [InputJob(0, line, f"j{line}", f"{line}|1", b"", None) for line in range(2, 8)]
    published = Published()
    assert published.continuation(sources) == "nothing was published"
    for job in jobs:
        published.send(job)
    for job in [*jobs[:3], jobs[5]]:
        published.confirm(job)
    assert (published.confirmed, published.in_doubt) == (4, 2)
    assert published.continuation(sources) == (
        "published lines 2-4 of a b.csv; continue with --from-line 5 'a b.csv' c.csv"
    )
    for job in jobs[3:5]:
        published.confirm(job)
    last = InputJob(1, 2, "k", "1|1", b"", None)
    published.send(last)
    published.confirm(last)
    assert published.continuation(sources) == (
        "published all of a b.csv, lines 1-2 of c.csv; continue with --from-line 3 c.csv"
    )


EXECUTED = "=+-@\t\r\n＝＋－＠"  # noqa: RUF001 - those that spreadsheets take, too


def cells(data: bytes) -> list[str]:
    """Return every cell below the header."""
    rows = list(csv.reader(io.StringIO(data.decode(), newline="")))[1:]
    return [cell for row in rows for cell in row]


@given(st.text(st.sampled_from(EXECUTED + "'a,\""), max_size=4))
def test_csv_for_a_spreadsheet(text: str) -> None:
    """No cell begins with what a spreadsheet carries out, whatever LCM or a producer says; and each can be had back."""
    found = [{"id": text, "code": text, "description": text}]
    one = result(text, account_number=text, outcomes=found)
    failed = result(text, error="c")
    plain = cells(HEADER + encoded([one, failed], OutputFormat.CSV))
    safe = cells(HEADER + encoded([one, failed], OutputFormat.CSV_SAFE))
    assert not [cell for cell in safe if cell[:1] in set(EXECUTED)]
    assert [unguarded(cell) for cell in safe] == plain


def test_csv_as_it_is() -> None:
    """Without the option nothing is changed: a number such as +49 is one."""
    assert b",+49," in encoded([result(account_number="+49")], OutputFormat.CSV)
    assert b",'+49," in encoded([result(account_number="+49")], OutputFormat.CSV_SAFE)
