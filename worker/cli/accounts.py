"""Account numbers as people write them in files: their lines, what they mean, or what is wrong with it. Pure."""

from __future__ import annotations

import re
import string
from collections.abc import Iterator
from typing import BinaryIO

from worker.common.text import quote
from worker.contract.job import MAX_BODY

MAX_LINE = 2 * MAX_BODY
"""Bytes of a line; no job that fits into a message needs more."""

ACCOUNT_COLUMN = "account_number"

_BLANKS = (
    string.whitespace + "\xa0\u200b\u202f\ufeff"
)  # the last is a byte order mark, as between joined files
_ROUNDED = re.compile(r"[0-9]+([.,][0-9]+)?[eE]\+[0-9]+")
_GROUPED = re.compile(r"[0-9]{1,3}([,'\u2019 \xa0\u202f][0-9]{3})+")
_FRACTION = re.compile(r"[0-9]+[.,]0+")


def lines_of(file: BinaryIO) -> Iterator[bytes]:
    """Yield each line with its end; of one that is longer than MAX_LINE, one byte more than that.

    The rest of such a line is passed over only when the next one is asked for: it may never end.
    """
    while line := file.readline(MAX_LINE + 1):
        yield line
        while len(line) > MAX_LINE and not line.endswith(b"\n"):
            line = file.readline(MAX_LINE + 1)


def trimmed(text: str) -> str:
    """Return a text without blanks around it, those that can't be seen included."""
    return text.strip(_BLANKS)


def is_comment(line: str) -> bool:
    """Whether a line is a remark, `# exported …`, rather than data."""
    return trimmed(line).startswith("#")


def column_of(title: str) -> str:
    """Return the name of a column, in which letter case, blanks, hyphens and underscores don't count."""
    return re.sub(r"[\s_-]", "", trimmed(title)).lower()


def account_of_cell(cell: str) -> str:
    """Return the account number of a cell, without blanks around it.

    Raises:
        ValueError: a spreadsheet has made another number of it; the text says so, for `line 1: `.
    """
    account = trimmed(cell)
    if _ROUNDED.fullmatch(account) or _FRACTION.fullmatch(account):
        raise ValueError(
            f"{quote(account)} is what a spreadsheet makes of a long number; export that column as text"
        )
    if _GROUPED.fullmatch(account):
        raise ValueError(f"{quote(account)} has thousands separators; export that column as text")
    return account


def account_of_line(line: str) -> str:
    """Return the account number of a whole line, which may be in quotes; "" where the line is blank.

    Raises:
        ValueError: as `account_of_cell`, and where a quote has no end.
    """
    account = trimmed(line)
    if account.startswith('"'):
        if len(account) == 1 or account.find('"', 1) != len(account) - 1:
            raise ValueError(f"{quote(account)} begins with a quote, but is not in quotes")
        account = account[1:-1]
    return account_of_cell(account)
