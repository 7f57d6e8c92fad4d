"""AMQP's properties as producers of all kinds write them: read without falling over any, written as they were read.

The library ends the connection over a property that it can't read, which brings back everything in hand, this
message included: one producer's odd time stamp would cost all others their delivery limit. And of what it can read
it can't write everything, so that a job with such a header could neither be retried nor dead-lettered.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from aiormq import spec
from pamqp import decode, encode

from worker.job import MAX_SHORT_STRING
from worker.text import cut

_TIME_SIZE = 8
_LENGTH_SIZE = 4


def read_leniently() -> None:
    """Have the library read whatever a broker lets pass. Changes its own tables, in this process; twice is harmless."""
    decode.METHODS.update(shortstr=_short_string, timestamp=_time, table=_headers)
    decode.TABLE_MAPPING[b"T"] = _time_in_table


def _short_string(value: bytes) -> tuple[int, str]:
    try:
        return decode.short_str(value)
    except UnicodeDecodeError:
        end = 1 + value[0]
        return end, cut(value[1:end].decode("utf-8", "backslashreplace"), MAX_SHORT_STRING)


def _time(value: bytes) -> tuple[int, datetime | None]:
    """Read a time; beyond the years that Python knows there is none."""
    try:
        return decode.timestamp(value)
    except (ValueError, OverflowError, OSError):
        return _TIME_SIZE, None


def _time_in_table(value: bytes) -> tuple[int, datetime | int]:
    """Read a time of a table; beyond the years that Python knows it is kept as its number."""
    _, moment = _time(value)
    return _TIME_SIZE, int.from_bytes(value[:_TIME_SIZE], "big") if moment is None else moment


def _headers(value: bytes) -> tuple[int, dict[str, Any]]:
    """Read a table; where a name is no UTF-8, or tables are nested too deeply, there is none."""
    try:
        return decode.field_table(value)
    except (ValueError, RecursionError):
        return _LENGTH_SIZE + int.from_bytes(value[:_LENGTH_SIZE], "big"), {}


class WritableProperties(spec.Basic.Properties):
    """Basic properties whose headers may hold whatever was read from a message."""

    def encode_property(self, name: str, value: Any) -> bytes:
        return _table(value) if name == "headers" else super().encode_property(name, value)


def _table(table: Mapping[str, Any]) -> bytes:
    return _long(b"".join(encode.short_string(name) + _value(value) for name, value in table.items()))


def _value(value: object) -> bytes:
    match value:
        case Mapping():
            return b"F" + _table(value)
        case list():
            return b"A" + _long(b"".join(map(_value, value)))
        case float():
            return b"d" + struct.pack(">d", value)  # the library would write 32 bits
        case bytes():
            return b"S" + _long(value)  # it was read as text in another encoding
    try:
        return encode.encode_table_value(value)  # type: ignore[arg-type] # it says so itself
    except (TypeError, ValueError, struct.error):
        return encode.encode_table_value(str(value))


def _long(content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + content
