"""Properties are read whatever is in them, and written as they were read."""

from __future__ import annotations

import struct
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from aiormq import spec
from hypothesis import given
from hypothesis import strategies as st
from pamqp import frame, header

from tests.support.amqp import RawProperties, field, longstr, shortstr, table
from worker.broker.fields import WritableProperties, read_leniently

NAMES = st.text(st.characters(codec="utf-8"), max_size=30)
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(st.characters(codec="utf-8")),
    st.binary().map(bytearray),
    st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)).map(  # noqa: DTZ001 - bounds
        lambda moment: moment.replace(microsecond=0)
    ),
    st.decimals(0, 1000, places=2),
)
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(NAMES, inner), max_leaves=20)


def read_back(properties: RawProperties | WritableProperties) -> Any:
    """Write a content header and read it as the library does."""
    read_leniently()
    written = frame.marshal(header.ContentHeader(0, 0, properties), 1)
    _, _, found = frame.unmarshal(written)
    assert isinstance(found, header.ContentHeader)
    return found.properties


@given(st.dictionaries(NAMES, VALUES))
def test_what_can_be_read_can_be_written(headers: dict[str, Any]) -> None:
    """Any header comes back as it was, whatever it holds and however it is nested."""
    assert (read_back(WritableProperties(headers=headers)).headers or {}) == headers


@pytest.mark.parametrize("value", [2**64 - 1, Decimal(2**40), Decimal("1e-300"), Decimal("NaN")])
def test_what_amqp_cannot_hold_is_written_as_text(value: Any) -> None:
    """A number that has no place in AMQP is there all the same, in words."""
    assert read_back(WritableProperties(headers={"odd": value})).headers == {"odd": str(value)}


def test_text_in_another_encoding_stays_as_it_was() -> None:
    """Text that is no UTF-8 is read as bytes and written as the same text again."""
    sent = table(field(b"odd", b"S", longstr(b"caf\xe9")))
    found = read_back(RawProperties({"headers": sent})).headers
    assert WritableProperties(headers=found).marshal().endswith(sent)


@pytest.mark.parametrize("text", [b"caf\xe9", b"\xff" * 255])
def test_a_short_string_that_is_no_utf_8_is_readable_and_short(text: bytes) -> None:
    """It is read with its odd bytes escaped, within what a property can hold when it is written again."""
    read = read_back(RawProperties({"message_id": shortstr(text)}, app_id="after"))
    assert read.message_id.encode() == text.decode("utf-8", "backslashreplace").encode()[:255]
    assert read.app_id == "after"


@pytest.mark.parametrize("moment", [2**63, 2**64 - 1, 10**18])
def test_a_time_beyond_all_years_is_none(moment: int) -> None:
    """As a property it is absent, in a header it is a number; whatever follows it is read."""
    raw = struct.pack(">Q", moment)
    read = read_back(
        RawProperties({"timestamp": raw, "headers": table(field(b"t", b"T", raw))}, app_id="after")
    )
    assert (read.timestamp, read.headers, read.app_id) == (None, {"t": moment}, "after")


@pytest.mark.parametrize("kind", ["tables", "lists"])
def test_headers_are_nested_64_levels_deep_at_most(kind: str) -> None:
    """Pitfall: some 300 levels could be read and not be written, so that a job with them had no end. Others stay."""
    for levels in (63, 64, 65, 120):
        inner: Any = "x"
        for _ in range(levels):
            inner = {"t": inner} if kind == "tables" else [inner]
        found = read_back(WritableProperties(headers={"deep": inner, "other": 1})).headers
        assert found == ({"deep": inner, "other": 1} if levels <= 64 else {"other": 1})


def test_headers_that_cannot_be_read_at_all_are_none() -> None:
    """With a name that is no UTF-8, or with tables nested without end, the rest of the message is still read."""
    deep = table()
    for _ in range(5000):
        deep = table(field(b"t", b"F", deep))
    for headers in (deep, table(field(b"caf\xe9", b"V", b""))):
        read = read_back(RawProperties({"headers": headers}, app_id="after"))
        assert (read.headers, read.app_id) == ({}, "after")


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "content_type": NAMES,
            "headers": st.dictionaries(
                NAMES, st.text(st.characters(codec="utf-8")), max_size=1
            ),  # it sorts them
            "delivery_mode": st.sampled_from([1, 2]),
            "priority": st.integers(0, 255),
            "correlation_id": NAMES,
            "message_id": NAMES,
            "timestamp": st.datetimes(datetime(1970, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - a bound
            "user_id": NAMES,
            "app_id": NAMES,
        },
    )
)
def test_properties_are_written_as_the_library_writes_them(properties: dict[str, Any]) -> None:
    """The shorter way gives the same bytes, for every property that there is."""
    ours, theirs = WritableProperties(**properties), spec.Basic.Properties(**properties)
    assert ours.marshal() == theirs.marshal()
