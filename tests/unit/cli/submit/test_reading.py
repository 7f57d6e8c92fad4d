"""Jobs read from JSON lines, CSV and plain account numbers."""

from __future__ import annotations

import codecs
import csv
import io
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.cli.submit.reading import MAX_LINE, BadInput, Entry, Format, entries, guess

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
ACCOUNT = TEXT.filter(lambda text: text.strip() and "\n" not in text and "\r" not in text)


def read(data: bytes, kind: Format) -> list[Entry]:
    return list(entries(io.BytesIO(data), kind))


def bodies(data: bytes, kind: Format) -> list[Any]:
    """Return what the bodies hold, where no line is bad."""
    found = read(data, kind)
    assert [entry.mistake for entry in found] == [""] * len(found)
    return [msgspec.json.decode(entry.body) for entry in found]


@given(st.lists(st.fixed_dictionaries({"account_number": TEXT, "metadata": st.dictionaries(TEXT, TEXT)})))
def test_json_lines_come_as_they_are(jobs: list[dict[str, Any]]) -> None:
    """Every JSON line is a body, byte for byte, under the number of its line."""
    lines = [msgspec.json.encode(job) for job in jobs]
    found = read(b"".join(line + b"\r\n" for line in lines), Format.JSONL)
    assert found == [Entry(number, line) for number, line in enumerate(lines, 1)]


@given(
    st.lists(st.fixed_dictionaries({"name": TEXT, "account_number": TEXT, "job_id": TEXT, "note": TEXT})),
    st.sampled_from(",;\t"),
)
def test_csv_gives_what_was_written(rows: list[dict[str, str]], delimiter: str) -> None:
    """What a CSV writer wrote is read: known columns as fields unless empty, others as metadata, text as it is."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(
        text, ["name", "account_number", "job_id", "note"], delimiter=delimiter, quoting=csv.QUOTE_ALL
    )
    writer.writeheader()
    writer.writerows(rows)
    expected = [
        {
            "account_number": row["account_number"],
            **({"job_id": row["job_id"]} if row["job_id"] else {}),
            "metadata": {"name": row["name"], "note": row["note"]},
        }
        for row in rows
    ]
    assert bodies(text.getvalue().encode(), Format.CSV) == expected


@given(st.lists(ACCOUNT))
def test_plain_lines_are_account_numbers(accounts: list[str]) -> None:
    """Each line that isn't blank is one account number, its end aside."""
    data = "\n\n".join(accounts).encode()
    # a byte order mark of its own, since one that an account begins with would be taken for it
    found = bodies(codecs.BOM_UTF8 + data, Format.PLAIN)
    assert [job["account_number"] for job in found] == accounts


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8])
@pytest.mark.parametrize(
    ("kind", "lines"),
    [
        (Format.JSONL, [b"", b'{"account_number":"1"}', b"  ", b'{"account_number":"2"}']),
        (Format.CSV, [b"", b"account_number", b"1", b"", b"2"]),
        (Format.PLAIN, [b"", b"1", b" ", b"2"]),
    ],
)
def test_marks_ends_and_blank_lines_are_no_matter(
    kind: Format, lines: list[bytes], mark: bytes, end: bytes
) -> None:
    """With or without a byte order mark, LF or CRLF, and blank lines between, the format and the jobs are found."""
    data = mark + end.join(lines)
    assert guess(io.BytesIO(data)).format is kind
    assert [job["account_number"] for job in bodies(data, kind)] == ["1", "2"]
    assert read(data, kind)[-1].line == len(lines)


def test_rows_over_several_lines_count_from_their_first() -> None:
    """A row with line ends in a cell has the number of the line that it begins in, and so do those behind it."""
    found = read(b'account_number,note\n1,"a\nb\nc"\n2,d\n', Format.CSV)
    assert [entry.line for entry in found] == [2, 5]
    assert msgspec.json.decode(found[0].body)["metadata"] == {"note": "a\nb\nc"}


@pytest.mark.parametrize(
    ("row", "mistake"),
    [
        (b"1", "has 1 cell where the header has 2"),
        (b"1,2,3", "has 3 cells where the header has 2"),
        (b"1,\xff", "is no UTF-8"),
        (b'1,"a"b', "is no CSV: ',' expected after '\"'"),
    ],
)
def test_a_bad_row_is_told_and_the_next_is_read(row: bytes, mistake: str) -> None:
    """A row that can't be read says why under its line, and the rows around it are read all the same."""
    found = read(b"account_number,note\n1,a\n" + row + b"\n2,b\n", Format.CSV)
    assert [(entry.line, entry.mistake) for entry in found] == [(2, ""), (3, mistake), (4, "")]


@pytest.mark.parametrize("kind", [Format.JSONL, Format.PLAIN])
def test_a_line_that_is_too_long_is_no_job(kind: Format) -> None:
    """A line of any length is one mistake, and lines are counted on behind it."""
    found = read(b"1\n" + b"x" * (5 * MAX_LINE) + b"\n2", kind)
    assert [(entry.line, entry.mistake) for entry in found] == [
        (1, ""), (2, f"is longer than {MAX_LINE} bytes"), (3, ""),
    ]  # fmt: skip


def test_a_plain_line_that_is_no_utf8_is_told() -> None:
    """Bytes that are no UTF-8 are a mistake of their own line."""
    found = read(b"1\n\xff2\n3", Format.PLAIN)
    assert [entry.mistake for entry in found] == ["", "is no UTF-8, found an invalid byte 0", ""]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"account,name\n", "'account,name' is no header with the column account_number"),
        (b'\n[{"account_number":"1"}]', "line 2: this looks like a JSON array"),
        ("account_number".encode("utf-16"), "this is UTF-16; save the file as UTF-8"),
    ],
)
def test_what_is_in_no_known_format_is_refused(data: bytes, told: str) -> None:
    """A first line that fits no format is refused with what to do, rather than taken for account numbers."""
    with pytest.raises(BadInput, match="line") as raised:
        guess(io.BytesIO(data))
    assert told in str(raised.value)


@pytest.mark.parametrize(
    ("header", "told"),
    [
        (b"account,name", "the header needs a column account_number, found 'account,name'"),
        (b"account_number,,a", "column 2 of the header has no name"),
        (b"account_number,a,a", "the header has the column 'a' more than once"),
    ],
)
def test_a_header_that_wont_do_is_told(header: bytes, told: str) -> None:
    """A header without the account number, or with columns that can't be told apart, is refused."""
    with pytest.raises(BadInput) as raised:
        read(header + b"\n1,2,3\n", Format.CSV)
    assert str(raised.value) == f"line 1: {told}"


def test_a_word_as_first_line_is_doubted() -> None:
    """A first line of letters alone is taken for an account number, but not without saying so."""
    assert guess(io.BytesIO(b"account\n18|1\n")) == (
        Format.PLAIN, "line 1: 'account' is taken for an account number",
    )  # fmt: skip
    assert guess(io.BytesIO(b"18|1|A\n")) == (Format.PLAIN, "")


def test_nothing_is_no_job() -> None:
    """An empty file, or a header alone, has no jobs and is no mistake."""
    assert guess(io.BytesIO(b"")).format is Format.PLAIN
    assert [
        read(data, kind) for kind in (Format.JSONL, Format.CSV, Format.PLAIN) for data in (b"", b"\n")
    ] == ([[]] * 6)
    assert read(b"account_number\n", Format.CSV) == []
