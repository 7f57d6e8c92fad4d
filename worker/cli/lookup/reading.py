"""Accounts to look up, from lines of text. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple

from worker.cli.accounts import (
    ACCOUNT_COLUMN,
    MAX_LINE,
    account_of_line,
    column_of,
    is_comment,
    lines_of,
    trimmed,
)
from worker.common.text import MAX_QUOTE, quote

_UTF16 = ("\udcff\udcfe", "\udcfe\udcff")  # its marks, as bytes that are no UTF-8 are decoded


class Asked(NamedTuple):
    """An account to look up; or a line that is none, and why."""

    account: str
    mistake: str = ""


def asked_in(file: BinaryIO, note: Callable[[str], object]) -> Iterator[Asked]:
    """Yield the account of each line, and lines that are none; blank lines, comments and a title are passed over.

    Nothing is read behind a first line that tells of another format. `note` is told of the first comment.
    """
    told, first = False, True
    for number, line in enumerate(lines_of(file), 1):
        text = trimmed(line.decode("utf-8", "surrogateescape"))
        if is_comment(text):
            if not told:
                note(f"standard input, line {number}: {quote(text)} is taken for a comment")
            told = True
        elif text:
            if first and (other := _other_format(text)):
                yield Asked(text[:MAX_QUOTE], f"line {number} of standard input {other}")
                return
            if not first or column_of(text) != column_of(ACCOUNT_COLUMN):
                yield _asked(number, text) if len(line) <= MAX_LINE else _too_long(number, text)
            first = False


def _other_format(text: str) -> str:
    if text.startswith(_UTF16) or "\0" in text:
        return "is UTF-16 or no text at all; save it as UTF-8"
    titles = [column_of(title) for title in re.split(r"[,;|\t]", text)]
    if text.startswith("{") or (len(titles) > 1 and column_of(ACCOUNT_COLUMN) in titles):
        return "is of JSON lines or CSV, which `lcm-worker submit` reads; give account numbers alone"
    return ""


def _asked(number: int, text: str) -> Asked:
    try:
        return Asked(account_of_line(text))
    except ValueError as error:
        return Asked(text, f"line {number} of standard input: {error}")


def _too_long(number: int, text: str) -> Asked:
    return Asked(text[:MAX_QUOTE], f"line {number} of standard input is longer than {MAX_LINE} bytes")
