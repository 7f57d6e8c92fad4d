"""Accounts read from lines."""

from __future__ import annotations

import pytest

from worker.cli.lookup.reading import Asked, asked_in
from worker.common.callbacks import ignore


def asked(*lines: str) -> list[Asked]:
    return list(asked_in(lines, ignore))


def test_lines_are_accounts() -> None:
    """Blanks, quotes and line ends go; blank lines are passed over, and so is the title of a lone column."""
    assert asked("Account Number\n", " 1|1 \r\n", "\n", '"2|2"\n', "3|3") == [
        Asked("1|1"), Asked("2|2"), Asked("3|3"),
    ]  # fmt: skip


def test_comments_are_told_once() -> None:
    """The first comment is told with its line, and none is asked for."""
    told: list[str] = []
    assert list(asked_in(["1\n", "# exported\n", "#2\n"], told.append)) == [Asked("1")]
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
