"""Accounts read from lines."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pytest

from worker.cli.accounts import MAX_LINE
from worker.cli.lookup.reading import Asked, asked_in
from worker.common.callbacks import ignore


def asked(*lines: str) -> list[Asked]:
    content = "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)
    return list(asked_in(BytesIO(content.encode("utf-8", "surrogateescape")), ignore))


def test_lines_are_accounts() -> None:
    """Blanks, quotes and line ends go; blank lines are passed over, and so is the title of a lone column."""
    assert asked("Account Number\n", " 1|1 \r\n", "\n", '"2|2"\n', "3|3") == [
        Asked("1|1"), Asked("2|2"), Asked("3|3"),
    ]  # fmt: skip


def test_comments_are_told_once() -> None:
    """The first comment is told with its line, and none is asked for."""
    told: list[str] = []
    assert list(asked_in(BytesIO(b"1\n# exported\n#2\n"), told.append)) == [Asked("1")]
    assert told == ["standard input, line 2: '# exported' is taken for a comment"]


@pytest.mark.parametrize(
    ("line", "mistake"),
    [
        ("1.23E+10", "line 2 of standard input: '1.23E+10' is what a spreadsheet makes of a long number"),
        ('"18|1', "line 2 of standard input: '\"18|1' begins with a quote"),
    ],
)
def test_a_line_that_is_no_account_is_told(line: str, mistake: str) -> None:
    """What a spreadsheet has spoiled is a mistake of its line; the others are asked for."""
    first, bad, last = asked("1", line, "2")
    assert (first, last, bad.account) == (Asked("1"), Asked("2"), line)
    assert bad.mistake.startswith(mistake)


@pytest.mark.parametrize(
    ("line", "mistake"),
    [
        ("account_number,name", "line 1 of standard input is of JSON lines or CSV"),
        ("name;Account Number", "line 1 of standard input is of JSON lines or CSV"),
        ('{"account_number":"1"}', "line 1 of standard input is of JSON lines or CSV"),
        ("\udcff\udcfe1\0", "line 1 of standard input is UTF-16"),
        ("1\0", "line 1 of standard input is UTF-16"),
    ],
)
def test_another_format_is_told_and_not_read_on(line: str, mistake: str) -> None:
    """A first line of another format is one mistake; what follows would be as many."""
    (found,) = asked(line, "2", "3")
    assert found.mistake.startswith(mistake)


def test_a_line_has_so_many_bytes() -> None:
    """A line of the largest size, its end included, is read; a longer one is one mistake, and lines are counted on."""
    largest = "1" * (MAX_LINE - 1)
    taken, one_more, far_more, last = asked(largest, largest + "1", "1" * (5 * MAX_LINE), "2")
    assert (taken, last) == (Asked(largest), Asked("2"))
    for number, bad in ((2, one_more), (3, far_more)):
        assert bad.mistake == f"line {number} of standard input is longer than {MAX_LINE} bytes"
        assert len(bad.account) < 100


def test_of_a_line_without_end_no_more_is_held() -> None:
    """A device of zero bytes is told as no text; what never ends is not waited for."""
    with Path("/dev/zero").open("rb") as endless:
        (found,) = asked_in(endless, ignore)
    assert found.mistake.startswith("line 1 of standard input is UTF-16 or no text at all")
    assert len(found.account) < 100
