"""A websocket connection that ends itself where its peer floods it, does not read, or refuses to open it.

The library answers each ping at once, and buffers the pongs for a peer that does not read them without limit. It waits
for the whole body of an HTTP answer before it tells the status, and a body may never end.
"""

from __future__ import annotations

from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.frames import Frame, Opcode
from websockets.protocol import Event, State

from worker.lcm.flood import FLOOD_SECONDS, MOST_UNSENT, MOST_UNSOLICITED, FloodCounter
from worker.lcm.http_answer import LONGEST_HEAD, Answer, read_answer


class Socket(ClientConnection):
    """A client's connection. `fault` tells why it ended itself over what its peer sent, "" where it did not."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fault = ""
        self._pings = FloodCounter()
        self._head = b""

    @property
    def answer(self) -> Answer | None:
        """The HTTP answer by which the peer refused a websocket, as far as it has come."""
        return read_answer(self._head)

    def data_received(self, data: bytes) -> None:
        """Handle incoming data, unless the answers to it pile up."""
        opening = self.protocol.state is State.CONNECTING
        super().data_received(data)
        if opening and len(self._head) < LONGEST_HEAD:
            self._head = (self._head + data)[:LONGEST_HEAD]
            if b"\r\n\r\n" in self._head and self.answer is not None:
                self.transport.abort()
        if self.transport.get_write_buffer_size() > MOST_UNSENT:
            self._end(f"does not read: over {MOST_UNSENT} bytes wait for it")

    def process_event(self, event: Event) -> None:
        """Handle one frame, unless there are too many pings."""
        super().process_event(event)
        if (
            isinstance(event, Frame)
            and event.opcode is Opcode.PING
            and self._pings.exceeded(self.loop.time())
        ):
            self._end(f"sent more than {MOST_UNSOLICITED} pings in {FLOOD_SECONDS:g} s")

    def _end(self, fault: str) -> None:
        self.fault = self.fault or fault
        self.transport.abort()
