"""Text is kept within bounds and fit for UTF-8, and times are read and written as RFC 3339."""

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.common.text import (
    MAX_QUOTE,
    cut,
    printable,
    printable_json,
    quote,
    read_rfc3339,
    rfc3339,
    well_formed,
)

ANY_TEXT = st.text(st.characters())  # lone surrogates included
NOON = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)


@given(ANY_TEXT, st.integers(0, 40))
def test_cut_text_fits_and_could_not_be_longer(text: str, limit: int) -> None:
    """What is cut fits its limit in UTF-8, and one more character would not have."""
    whole = well_formed(text)
    kept = cut(text, limit)
    assert whole.startswith(kept)
    assert len(kept.encode()) <= limit
    assert kept == whole or len(whole[: len(kept) + 1].encode()) > limit


def test_distinct_surrogates_stay_distinct() -> None:
    """A lone surrogate becomes its escape, so that two texts don't become one."""
    assert well_formed("a\ud800") == r"a\ud800"
    assert well_formed("a\udfff") == r"a\udfff"
    assert well_formed("é😀") == "é😀"


@given(ANY_TEXT)
def test_printable_text_can_not_move_a_cursor(text: str) -> None:
    """Whatever a text holds, its printable form is one line without control sequences; one that was so is kept."""
    shown = printable(text)
    assert shown.isprintable()
    assert shown == text or not text.isprintable()


def test_printable_text_escapes_nothing_else() -> None:
    """Beside a character that is escaped, letters of any script and backslashes stay as they are."""
    assert printable("é\\😀\n\x1b[2J\u2028\ud800") == r"é\😀\n\x1b[2J\u2028\ud800"


@given(ANY_TEXT)
def test_a_quote_is_one_short_line(text: str) -> None:
    """A quoted value takes one line of at most 80 characters, whatever it holds."""
    shown = quote(text)
    assert len(shown) <= MAX_QUOTE
    assert shown.isprintable()


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-01-31T12:00:00Z", NOON),
        ("2026-01-31t12:00:00z", NOON),
        ("2026-01-31 12:00:00Z", NOON),
        ("2026-01-31T13:30:00+01:30", NOON),
        ("2026-01-31T12:00:00-00:00", NOON),
        ("2026-01-31T12:00:00.5Z", NOON + timedelta(milliseconds=500)),
        ("2026-01-31T12:00:00.123456789Z", NOON + timedelta(microseconds=123456)),
        ("2016-12-31T23:59:60Z", datetime(2017, 1, 1, tzinfo=UTC)),
    ],
)
def test_rfc_3339_is_read_to_utc(text: str, moment: datetime) -> None:
    """Every way of writing that RFC 3339 allows gives the moment in UTC."""
    assert read_rfc3339(text) == moment
    assert read_rfc3339(text).tzinfo is UTC


@pytest.mark.parametrize(
    "text",
    [
        "",
        "soon",
        "2026-01-31",
        "2026-01-31T12:00:00",
        "2026-01-31T12:00Z",
        "20260131T120000Z",
        "2026-W05-6T12:00:00Z",
        "2026-02-30T12:00:00Z",
        "2026-01-31T24:00:00Z",
        "2026-01-31T12:00:00+0100",
        "2026-01-31T12:00:00+24:00",
        "2026-01-31T12:00:00+01:60",
        "2026-01-31T12:00:00.Z",
        "2026-01-31T12:00:00Z\n",
        "٢٠٢٦-01-31T12:00:00Z",
        "0001-01-01T00:00:00+01:00",
        "9999-12-31T23:59:59-01:00",
        "9999-12-31T23:59:60Z",
    ],
)
def test_everything_else_is_no_time(text: str) -> None:
    """A time without an offset, in another form, or out of range is refused, not guessed."""
    with pytest.raises(ValueError, match=r"RFC 3339|years|day|month"):
        read_rfc3339(text)


def test_times_are_written_in_utc_with_milliseconds() -> None:
    """A time is written in UTC, its microseconds dropped, whatever zone it came in."""
    moment = datetime(2026, 1, 31, 14, 0, 0, 123999, tzinfo=timezone(timedelta(hours=2)))
    assert rfc3339(moment) == "2026-01-31T12:00:00.123Z"
    assert rfc3339(NOON) == "2026-01-31T12:00:00.000Z"


@given(st.datetimes(timezones=st.timezones() | st.just(UTC)).filter(lambda moment: 1 < moment.year < 9999))
def test_every_moment_is_written_in_milliseconds(moment: datetime) -> None:
    """A moment of any zone and year is written in UTC, its microseconds cut off and not rounded."""
    written = moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds")
    assert rfc3339(moment) == f"{written}Z"


@given(st.text(), st.text())
def test_json_on_a_terminal_means_the_same_and_is_printable(key: str, value: str) -> None:
    """Whatever a text holds, its line is printable and is read as before."""
    for ensure_ascii in (True, False):
        try:
            line = json.dumps({key: value}, ensure_ascii=ensure_ascii).encode()
        except UnicodeEncodeError:
            continue  # a lone surrogate has no bytes
        shown = printable_json(line + b"\r\n")
        assert shown.decode().rstrip("\r\n").isprintable()
        assert json.loads(shown) == {key: value}


def test_bytes_that_are_no_text_and_lone_returns_are_escaped() -> None:
    """Line ends stay, whatever else would move the cursor or can't be read does not."""
    assert printable_json(b"a\x9b31m\n") == b"a\\x9b31m\n"
    assert printable_json(b"a\xff\rb\x1b\r\nc\td\n") == b"a\\xff\\u000db\\u001b\r\nc\td\n"
