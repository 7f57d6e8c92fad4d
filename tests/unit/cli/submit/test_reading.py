"""Jobs read from JSON lines, CSV and plain account numbers."""

from __future__ import annotations

import codecs
import csv
import io
import tracemalloc
from contextlib import suppress
from functools import partial
from typing import Any, BinaryIO, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.cli.accounts import MAX_LINE, trimmed
from worker.cli.submit.reading import BadInput, Entry, Format, entries, guess

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
LINE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\n"))
ACCOUNT = LINE.map(lambda text: f"A{text}z")
BLANK = st.sampled_from(["", " ", "\t", "\xa0 ", "\ufeff"])


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
    st.lists(st.fixed_dictionaries({"name": TEXT, "account_number": ACCOUNT, "job_id": TEXT, "note": TEXT})),
    st.sampled_from(",;\t|"),
)
def test_csv_gives_what_was_written(rows: list[dict[str, str]], delimiter: str) -> None:
    """What a CSV writer wrote is read: known columns as fields unless empty, others as metadata; blanks around go."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(
        text, ["name", "account_number", "job_id", "note"], delimiter=delimiter, quoting=csv.QUOTE_ALL
    )
    writer.writeheader()
    writer.writerows(rows)
    expected = [
        {
            "account_number": row["account_number"],
            **({"job_id": trimmed(row["job_id"])} if trimmed(row["job_id"]) else {}),
            "metadata": {"name": trimmed(row["name"]), "note": trimmed(row["note"])},
        }
        for row in rows
    ]
    assert bodies(text.getvalue().encode(), Format.CSV) == expected


@given(st.lists(st.tuples(BLANK, ACCOUNT, BLANK)))
def test_plain_lines_are_account_numbers(lines: list[tuple[str, str, str]]) -> None:
    """Each line that isn't blank is one account number, without the blanks around it."""
    found = bodies("\n\n".join(map("".join, lines)).encode(), Format.PLAIN)
    assert [job["account_number"] for job in found] == [account for _, account, _ in lines]


@pytest.mark.parametrize(
    ("header", "rows"),
    [
        ("account_number, name", "12345 , x\n 678,y \n"),
        ("account_number|name", "12345|x\n678|y\n"),
        ("account_number\tname", "12345\tx\n678\ty\n"),
        ("account_number;name", "12345;x\n\n;\n678;y\n;;\n".replace(";;", ";")),
        ("Account Number,name", "12345,x\r\n678,y\r\n,\r\n\r\n"),
        ("ACCOUNT-NUMBER ,name", '"12345", "x"\n"678",y\n'),
        ("# exported 2026-11-01\naccountNumber,name", "12345,x\n# 678,z\n678,y\n# total: 2"),
        ("\ufeffname,account_number".replace("name,account_number", "account_number,name"), "12345,x\n678,y"),
    ],
)
def test_csv_is_read_as_it_is_meant(header: str, rows: str) -> None:
    """Whatever the delimiter, the spelling of the column, blanks, comments and rows without cells: two jobs."""
    data = f"{header}\n{rows}".encode()
    assert guess(io.BytesIO(data)).format is Format.CSV
    jobs = [entry for entry in read(data, Format.CSV) if not entry.comment]
    assert [(entry.mistake, msgspec.json.decode(entry.body or b"0")) for entry in jobs] == [
        ("", {"account_number": account, "metadata": {"name": name}})
        for account, name in (("12345", "x"), ("678", "y"))
    ]


def test_known_columns_are_known_by_any_spelling() -> None:
    """Letter case, blanks, hyphens and underscores don't count in the names of columns that jobs know."""
    assert bodies(b"Job ID,ROUTE,account number,Dead-Line,Other One\nj,r,1,d,o\n", Format.CSV) == [
        {"account_number": "1", "job_id": "j", "route": "r", "deadline": "d", "metadata": {"Other One": "o"}}
    ]


def test_blank_lines_and_comments_ahead_of_the_header() -> None:
    """In any order; so between rows."""
    found = read(b"\n# exported\n\n# today\naccount_number\n1\n\n# more\n2\n", Format.CSV)
    assert [entry.body for entry in found if not entry.comment] == [
        b'{"account_number":"1"}', b'{"account_number":"2"}',
    ]  # fmt: skip


@pytest.mark.parametrize("kind", [Format.CSV, Format.PLAIN, Format.JSONL])
def test_comments_are_told_under_their_line(kind: Format) -> None:
    """A line that begins with # is no job: it is a comment, with its number; in a quoted cell it is text."""
    lines = {
        Format.CSV: b'account_number,n\n1,"a\n# b"',
        Format.PLAIN: b"1",
        Format.JSONL: b'{"account_number":"1"}',
    }
    found = read(b"# exported\n" + lines[kind] + b"\n  # end", kind)
    assert [entry.comment for entry in found] == ["'# exported'", "", "'# end'"]
    assert found[-1].line == 3 + 2 * (kind is Format.CSV)
    if kind is Format.CSV:
        assert msgspec.json.decode(found[1].body)["metadata"] == {"n": "a\n# b"}


@pytest.mark.parametrize("kind", [Format.CSV, Format.PLAIN])
@pytest.mark.parametrize(
    ("account", "told"),
    [
        ("1.23E+10", "'1.23E+10' is what a spreadsheet makes of a long number"),
        ("12345.0", "'12345.0' is what a spreadsheet makes of a long number"),
        ("1 234 567", "'1 234 567' has thousands separators"),
        ("1'234", "has thousands separators"),
    ],
)
def test_numbers_that_a_spreadsheet_made_are_told(kind: Format, account: str, told: str) -> None:
    """What is no account number any more is a mistake of its line, rather than asked for."""
    head = "account_number,n" if kind is Format.CSV else "0"
    (entry,) = read(f"{head}\n{account}{',x' if kind is Format.CSV else ''}\n".encode(), kind)[-1:]
    assert entry.line == 2
    assert told in entry.mistake


def test_quotes_around_a_plain_account_go() -> None:
    """An account in quotes is what is in them; one with a quote that does not end is told."""
    found = read(b'"18|1"\n"18|2\n"\n18"3\n', Format.PLAIN)
    assert [entry.line for entry in found if entry.mistake] == [2, 3]
    accounts = [msgspec.json.decode(entry.body)["account_number"] for entry in found if not entry.mistake]
    assert accounts == ["18|1", '18"3']


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
        (b"Account Number,note", "is the header once more, as where files were joined"),
        (b"1,a\0", "holds a zero byte"),
    ],
)
def test_a_bad_row_is_told_and_the_next_is_read(row: bytes, mistake: str) -> None:
    """A row that can't be read says why under its line, and the rows around it are read all the same."""
    found = read(b"account_number,note\n1,a\n" + row + b"\n2,b\n", Format.CSV)
    assert [(entry.line, entry.mistake) for entry in found] == [(2, ""), (3, mistake), (4, "")]


@pytest.mark.parametrize("kind", [Format.JSONL, Format.PLAIN])
@pytest.mark.parametrize(("more", "taken"), [(-1, True), (0, True), (1, False)], ids=["under", "at", "over"])
def test_a_line_has_so_many_bytes(kind: Format, more: int, taken: bool) -> None:
    """A line of the largest size, its end included, is read; one byte more is a mistake."""
    line = b'{"account_number":"' + b"1" * (MAX_LINE + more - len(b'{"account_number":""}\n')) + b'"}\n'
    [entry] = read(line, kind)
    assert bool(entry.body) is taken


@pytest.mark.parametrize("kind", [Format.JSONL, Format.PLAIN])
def test_a_line_that_is_too_long_is_no_job(kind: Format) -> None:
    """A line of any length is one mistake, and lines are counted on behind it."""
    found = read(b"1\n" + b"x" * (5 * MAX_LINE) + b"\n2", kind)
    assert [(entry.line, entry.mistake) for entry in found] == [
        (1, ""), (2, f"is longer than {MAX_LINE} bytes"), (3, ""),
    ]  # fmt: skip


COMMENT = b"# " + b"a comment of a line" * 5 + b"\n"


class Endless:
    """A file that begins so, then has one line so many times."""

    def __init__(self, start: bytes, line: bytes, times: int) -> None:
        self._start, self._line, self._left = io.BytesIO(start), line, times

    def readline(self, _limit: int) -> bytes:
        if line := self._start.readline():
            return line
        self._left -= 1
        return self._line if self._left >= 0 else b""


def peak_of(file: Endless, kind: Format) -> int:
    """Return the most bytes that reading this file takes; what is wrong with it ends that."""
    tracemalloc.start()
    try:
        with suppress(BadInput):
            for _ in entries(cast(BinaryIO, file), kind):
                pass
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("start", "line"),
    [
        (b"", COMMENT),
        (b"account_number\n1\n", COMMENT),
        (b'account_number\n"', b'","' * 30 + b"\n"),
        (b'account_number\n"', b"text\n"),
    ],
    ids=["comments", "comments behind a row", "cells without end", "a cell without end"],
)
def test_what_goes_on_without_end_is_never_held(start: bytes, line: bytes) -> None:
    """Of fifty times the longest row, however it is made up, no more is in memory than a few of them."""
    times = 50 * MAX_LINE // len(line)
    assert peak_of(Endless(start, line, times), Format.CSV) < 16 * MAX_LINE


@pytest.mark.parametrize(
    ("more", "told"),
    [(-1, False), (0, False), (1, True)],
    ids=["under", "at", "over"],
)
def test_a_row_over_several_lines_has_so_many_bytes(more: int, told: bool) -> None:
    """A row that goes on for longer than any job is refused with its first line: a quote is missing there."""
    start, end = b'"', b'"\n'
    row = start + b"\n" + b"x" * (MAX_LINE + more - len(start + end) - 1) + end
    reading = partial(read, b"account_number\n1\n" + row + b"2\n", Format.CSV)
    if told:
        with pytest.raises(BadInput, match=f"line 3: a row begins that has more than {MAX_LINE} bytes"):
            reading()
    else:
        assert [entry.line for entry in reading()] == [2, 3, 5]


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
        ("account_number".encode("utf-16-le"), "this has zero bytes, as UTF-16 has; save the file as UTF-8"),
        (
            b"# exported\naccount|name\n1|x",
            "line 2: 'account|name' is no header with the column account_number",
        ),
        (b"12,345\n", "'12,345' is no header"),
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
        (b"account_number,Account Number", "the header has the column 'account_number' more than once"),
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


PIECES = st.sampled_from(
    [
        b"account_number",
        b"Account Number",
        b",",
        b";",
        b"|",
        b"\t",
        b'"',
        b"#",
        b"\n",
        b"\r",
        b"\0",
        b"\xff",
        b"1",
        b" ",
    ]
)
ANY_FILE = st.binary(max_size=50) | st.lists(PIECES, max_size=12).map(b"".join)


@given(ANY_FILE, st.sampled_from([Format.CSV, Format.PLAIN, Format.JSONL]))
def test_any_bytes_are_jobs_mistakes_or_refused(data: bytes, kind: Format) -> None:
    """Whatever a file holds: each entry is a job, a mistake or a comment under a line of it, or all is refused."""
    with suppress(BadInput):
        guess(io.BytesIO(data))
    with suppress(BadInput):
        for entry in read(data, kind):
            assert [bool(entry.body), bool(entry.mistake), bool(entry.comment)].count(True) == 1
            assert 1 <= entry.line <= data.count(b"\n") + data.count(b"\r") + 1
