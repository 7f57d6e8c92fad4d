"""Text for messages: cut to a length, quoted, fit for UTF-8; and times as RFC 3339."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta

import msgspec

MAX_QUOTE = 80

# msgspec reads RFC 3339 too, but refuses leap seconds, rounds nanoseconds up, and takes an offset without its colon.
_TIME = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ]((?:[01]\d|2[0-3]):[0-5]\d:)([0-5]\d|60)(\.\d+)?"
    r"([Zz]|[+-](?:[01]\d|2[0-3]):[0-5]\d)",
    re.ASCII,
)

# A lone carriage return would have the rest of a line overwrite its beginning.
_UNPRINTABLE = re.compile(r"[^\r\n\t -~]+|\r(?!\n)")

_LONGEST_ESCAPE = 0xFFFF

_ENCODER = msgspec.json.Encoder()

_KINDS = {
    b'"': "a string",
    b"{": "an object",
    b"[": "an array",
    b"t": "a boolean",
    b"f": "a boolean",
    b"n": "null",
}


def well_formed(text: str) -> str:
    r"""Return text that UTF-8 can hold: a lone surrogate becomes its escape, such as `\ud800`."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def cut(text: str, limit: int) -> str:
    """Return the longest beginning of text, made well-formed, that takes at most `limit` bytes of UTF-8."""
    if len(text) <= limit and text.isascii():
        return text
    return text.encode("utf-8", "backslashreplace")[:limit].decode("utf-8", "ignore")


def shortened(text: str, limit: int) -> str:
    """Return text of at most `limit` characters: "…" tells that it was cut, as who masks secrets has to know."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def printable(text: str) -> str:
    r"""Return text with an escape, such as `\n` or `\x1b`, for each character that is not printable.

    So external text can't break a line or send control sequences to a terminal.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def printable_json(lines: bytes) -> bytes:
    r"""Return lines of JSON, or CSV, for a terminal: `\u009b` and the like stand for what is not printable.

    JSON means the same with them.
    """
    return printable_lines(lines.decode(errors="backslashreplace")).encode()


def printable_lines(text: str) -> str:
    r"""Return text for a terminal likewise: line breaks stay, an escape stands for what else is not printable."""
    return text if text.isprintable() else _UNPRINTABLE.sub(_as_json_escape, text)


def _as_json_escape(found: re.Match[str]) -> str:
    return "".join(char if char.isprintable() else _escaped(char) for char in found[0])


def _escaped(char: str) -> str:
    # Two escapes for what is beyond 16 bits, which the library knows how to make; it leaves DEL as it is.
    return f"\\u{ord(char):04x}" if ord(char) <= _LONGEST_ESCAPE else json.dumps(char)[1:-1]


def quote(value: str) -> str:
    """Return a value for a message: in quotes, on one line, and cut to `MAX_QUOTE` characters."""
    text = repr(value[:MAX_QUOTE])
    whole = len(value) <= MAX_QUOTE and len(text) <= MAX_QUOTE
    return text if whole else f"{text[: MAX_QUOTE - 1]}…"


def rfc3339(moment: datetime) -> str:
    """Write an aware time as in all messages: UTC, in milliseconds, `2026-01-31T12:00:00.123Z`."""
    utc = moment.astimezone(UTC)
    # As a JSON string, with as many digits of a second as it has: at a third of the price of `isoformat`.
    seconds = _ENCODER.encode(utc)[1:20].decode()
    return f"{seconds}.{utc.microsecond // 1000:03}Z"


def read_rfc3339(text: str) -> datetime:
    """Read an RFC 3339 time with its offset, as an aware time in UTC.

    Raises:
        ValueError: it is none, names a day that doesn't exist, or lies outside the years 1 to 9999.
    """
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(f"{quote(text)} is no RFC 3339 time with its offset")
    date, minutes, seconds, fraction, offset = match.groups(default="")
    leap = seconds == "60"  # allowed by RFC 3339, unknown to datetime
    moment = datetime.fromisoformat(f"{date}T{minutes}{'59' if leap else seconds}{fraction}{offset.upper()}")
    try:
        return moment.astimezone(UTC) + timedelta(seconds=leap)
    except OverflowError as error:
        raise ValueError(f"{quote(text)} is outside the years 1 to 9999") from error


def kind_of(raw: bytes) -> str:
    """Name the kind of a JSON value by its text, without showing it; "nothing" where there is none."""
    return _KINDS.get(raw[:1], "a number") if raw else "nothing"
