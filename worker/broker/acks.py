"""Settles the deliveries of one channel: what is settled in one turn of the event loop goes out in one write."""

from __future__ import annotations

import asyncio
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
    """Tells the broker how deliveries end. `on_lost` is given the tags of those that it can't be told any more."""

    def __init__(self, channel: AbstractChannel, on_lost: Callable[[list[int]], object]) -> None:
        self._channel = channel
        self._socket = socket_of(channel)
        self._on_lost = on_lost
        self._frames: list[bytes] = []
        self._tags: list[int] = []

    def settle(self, tag: int, settle: Settle, *, multiple: bool = False) -> None:
        """Acknowledge a delivery, with `multiple` all before it as well, or reject it without requeueing it."""
        if not self._frames:
            asyncio.get_running_loop().call_soon(self.flush)
        self._tags.append(tag)
        # The flag of basic.reject, whose place is that of `multiple`, is `requeue`.
        method = _METHODS[settle]
        self._frames.append(
            _FRAME.pack(_METHOD_FRAME, self._channel.number, _LENGTH, _BASIC, method, tag, multiple, _END)
        )

    def flush(self) -> None:
        """Write what is settled; to be called before anything on the channel that must come after it."""
        if not self._frames:
            return
        frames, tags = b"".join(self._frames), self._tags
        self._frames, self._tags = [], []
        if is_closing(self._channel) or not self._socket.write(frames):
            self._on_lost(tags)
