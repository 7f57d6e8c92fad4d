"""Messages as other people's producers write them: properties byte by byte, beyond what our library would send."""

from __future__ import annotations

import struct
from typing import Any

from aiormq import spec


def shortstr(text: bytes) -> bytes:
    return bytes([len(text)]) + text


def field(name: bytes, kind: bytes, value: bytes) -> bytes:
    """Return one entry of a table; `kind` is the letter of AMQP 0-9-1 as RabbitMQ reads it."""
    return shortstr(name) + kind + value


def longstr(text: bytes) -> bytes:
    return struct.pack(">I", len(text)) + text


def table(*fields: bytes) -> bytes:
    return longstr(b"".join(fields))


class RawProperties(spec.Basic.Properties):
    """Properties of which some are given as the bytes that shall be sent."""

    def __init__(self, raw: dict[str, bytes], **others: Any) -> None:
        super().__init__(delivery_mode=2, **others)
        self._raw = raw
        for name in raw:
            setattr(self, name, "raw")

    def encode_property(self, name: str, value: Any) -> bytes:
        return self._raw.get(name) or super().encode_property(name, value)


class ReservedFlags(spec.Basic.Properties):
    """Properties whose flags have the two reserved bits set: RabbitMQ ignores these bits and passes them on."""

    def marshal(self) -> bytes:
        written = super().marshal()
        return bytes([written[0], written[1] | 0b11]) + written[2:]
