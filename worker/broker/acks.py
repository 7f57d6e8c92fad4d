"""Settles the deliveries of one channel, without waiting for the library to write each frame."""

from __future__ import annotations

import struct
from collections.abc import Callable

from aiormq.abc import AbstractChannel

from worker.broker.connection import is_closing, socket_of
from worker.contract.disposition import Settle

_FRAME = struct.Struct(">BHIHHQ?B")
"""Frame type, channel, length; class, method, delivery tag and flag; frame end: `basic.ack` and `basic.reject`."""

_METHOD_FRAME, _LENGTH, _BASIC, _END = 1, 13, 60, 0xCE
_METHODS = {Settle.ACK: 80, Settle.DEAD_LETTER: 90}


class Acks:
    """Tells the broker how deliveries end. `on_lost` is given the tag of one that it can't be told any more."""

    def __init__(self, channel: AbstractChannel, on_lost: Callable[[int], object]) -> None:
        self._channel = channel
        self._socket = socket_of(channel)
        self._on_lost = on_lost

    def settle(self, tag: int, settle: Settle, *, multiple: bool = False) -> None:
        """Acknowledge a delivery, with `multiple` all before it as well, or reject it without requeueing it."""
        method = _METHODS[settle]
        # The flag of basic.reject, whose place is that of `multiple`, is `requeue`.
        frame = _FRAME.pack(_METHOD_FRAME, self._channel.number, _LENGTH, _BASIC, method, tag, multiple, _END)
        if is_closing(self._channel) or not self._socket.write(frame):
            self._on_lost(tag)
