"""Decodes and encodes AMQP properties leniently: every property that a broker accepts can be read and written again.

The library closes the connection over a property that it can't decode, and everything in hand is redelivered, this
message included: one producer's invalid timestamp would use up the delivery limit of all other jobs. Some values that
the library decodes it can't encode, so a job with such a header could neither be retried nor dead-lettered.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from operator import attrgetter
from typing import Any

from aiormq import spec
from pamqp import decode, encode
from pamqp.header import ContentHeader

from worker.common.text import cut
from worker.contract.job import MAX_SHORT_STRING

_FLAGS_SIZE = 2
_TIME_SIZE = 8
_LENGTH_SIZE = 4
_EMPTY_TABLE = bytes(_LENGTH_SIZE)
_MOST_NESTED = 64  # tables and lists of a header in one another: what is read has to be written again


def read_leniently() -> None:
    """Make the library decode whatever a broker accepts. Changes its decoders in this process; idempotent."""
    decode.METHODS.update(shortstr=_short_string, timestamp=_time, table=_headers)
    decode.TABLE_MAPPING[b"T"] = _time_in_table
    ContentHeader._get_flags = staticmethod(_flags)  # type: ignore[method-assign, assignment] # noqa: SLF001


def _flags(value: bytes) -> tuple[int, int]:
    """Read the flags: 14 bits tell which properties follow, and two tell nothing, which RabbitMQ passes on as they are.

    To the library the last bit announces more flags, where the properties stand.
    """
    return _FLAGS_SIZE, int.from_bytes(value[:_FLAGS_SIZE], "big")


def _short_string(value: bytes) -> tuple[int, str]:
    try:
        return decode.short_str(value)
    except UnicodeDecodeError:
        end = 1 + value[0]
        return end, cut(value[1:end].decode("utf-8", "backslashreplace"), MAX_SHORT_STRING)


def _time(value: bytes) -> tuple[int, datetime | None]:
    """Read a timestamp; None where Python's datetime can't hold its year."""
    try:
        return decode.timestamp(value)
    except (ValueError, OverflowError, OSError):
        return _TIME_SIZE, None


def _time_in_table(value: bytes) -> tuple[int, datetime | int]:
    """Read a timestamp in a table; its number where Python's datetime can't hold its year."""
    _, moment = _time(value)
    return _TIME_SIZE, int.from_bytes(value[:_TIME_SIZE], "big") if moment is None else moment


def _headers(value: bytes) -> tuple[int, dict[str, Any]]:
    """Read a table without what is nested too deeply; an empty one where it can't be read at all."""
    try:
        end, table = decode.field_table(value)
    except (ValueError, RecursionError):
        return _LENGTH_SIZE + int.from_bytes(value[:_LENGTH_SIZE], "big"), {}
    # The others are kept: the broker's count of deliveries is among them.
    return end, {name: value for name, value in table.items() if not _is_deeper(value, _MOST_NESTED)}


def _is_deeper(value: object, levels: int) -> bool:
    match value:
        case dict():
            inner: Iterable[object] = value.values()
        case list():
            inner = value
        case _:
            return False
    return not levels or any(_is_deeper(each, levels - 1) for each in inner)


class WritableProperties(spec.Basic.Properties):
    """Basic properties whose headers may hold every value that was read from a message."""

    def marshal(self) -> bytes:
        """Write the properties, as the library does, in a third of its time: each job has them written once or more."""
        flags, parts = 0, []
        for value, (flag, write) in zip(_values_of(self), _WRITERS, strict=True):
            if value is not None and value != "":
                flags |= flag
                parts.append(write(value))
        return struct.pack(">H", flags) + b"".join(parts)


def size_of(table: Mapping[str, Any]) -> int:
    """Return how many bytes a table of headers takes."""
    return len(_table(table))


def _table(table: Mapping[str, Any]) -> bytes:
    if not table:
        return _EMPTY_TABLE
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


def _short(text: str) -> bytes:
    encoded = text.encode()
    return len(encoded).to_bytes() + encoded


def _moment(moment: datetime) -> bytes:
    """Write an aware time, in whole seconds."""
    return int(moment.timestamp()).to_bytes(_TIME_SIZE)


_WRITTEN: dict[str, Callable[[Any], bytes]] = {
    "shortstr": _short,
    "table": _table,
    "octet": encode.octet,
    "timestamp": _moment,
}
_NAMES = spec.Basic.Properties.attributes()
_WRITERS = [
    (spec.Basic.Properties.flags[name], _WRITTEN[spec.Basic.Properties.amqp_type(name)]) for name in _NAMES
]
_values_of = attrgetter(*_NAMES)
