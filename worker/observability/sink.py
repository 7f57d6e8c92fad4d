"""Where finished log lines go: a stream that may stall, fill up or close, none of which stops the worker."""

from __future__ import annotations

import asyncio
import atexit
import os
import select
import socket
import stat
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from worker.common.callbacks import ignore

MOST_KEPT = 4 * 1024 * 1024
"""Bytes of lines that wait for a stalled reader; further lines are dropped and counted."""

_TOGETHER = (
    0.002  # seconds for which lines that may wait are gathered, and lost with a process that is killed
)

_LAST_WAIT = 1.0  # seconds that the end of the process waits for a stalled reader
_LOOK_AGAIN = 1.0
_CHUNK = 65_536

Write = Callable[[bytes], int]
"""Writes the beginning of some data and returns its length; raises BlockingIOError where it would have to wait."""


class ByteStream(Protocol):
    """What lines are written to."""

    def write(self, data: bytes, /) -> Any: ...
    def flush(self) -> Any: ...
    def isatty(self) -> bool: ...
    def fileno(self) -> int: ...


class Sink:
    """Writes each line at once, or with those that follow closely, and never waits for a reader.

    While the reader of a pipe or terminal stalls, lines wait in a bounded buffer, which a thread writes when it reads
    again. A line that can't be written, as on a full disk, is dropped, and the next one starts on a line of its own.
    `dropped` counts such lines; `on_dropped` is told how many they were, once lines can be written again.
    """

    def __init__(self, stream: ByteStream) -> None:
        self.on_dropped: Callable[[int], object] = ignore
        self._stream = stream
        self._write = _without_waiting(stream)
        self._lock = threading.RLock()
        self._soon: list[bytes] = []
        self._waiting = bytearray()
        self.dropped = 0
        self._told = 0
        self._torn = False
        self._caught_up = threading.Event()

    def msg(self, line: bytes) -> None:
        """Write a line, without its end, at once."""
        with self._lock:
            self._soon.append(line)
            self.flush()

    def soon(self, line: bytes) -> None:
        """Write a line within a few milliseconds, with others; at once where no event loop runs."""
        with self._lock:
            self._soon.append(line)
            if len(self._soon) > 1:
                return  # whoever came first has seen to it
        try:
            asyncio.get_running_loop().call_later(_TOGETHER, self.flush)
        except RuntimeError:
            self.flush()

    def flush(self) -> None:
        """Write what is to be written soon."""
        with self._lock:
            if not self._soon:
                return
            lines = b"\n".join(self._soon) + b"\n"
            number = len(self._soon)
            self._soon.clear()
            if not self._waiting:
                self._waiting += b"\n" + lines if self._torn else lines
                self._write_waiting()
                if self._waiting:
                    self._start_catching_up()
            elif len(self._waiting) + len(lines) < MOST_KEPT:
                self._waiting += lines
            else:
                self.dropped += number

    debug = info = warning = error = critical = exception = log = msg

    def _write_waiting(self) -> None:
        """Write as much as can be written at once; tell of dropped lines when that is all."""
        sent, error = self._send()
        if sent == len(self._waiting) and not (self._torn or self.dropped > self._told):
            self._waiting.clear()
            return  # as nearly always
        del self._waiting[:sent]
        if isinstance(error, BlockingIOError):
            return
        # After a full disk, say: a line that was written in part must not swallow the next one.
        self._torn = error is not None and (self._torn or sent > 0)
        self.dropped += self._waiting.count(b"\n")
        self._waiting.clear()
        if isinstance(error, BrokenPipeError):
            self._discard_from_now_on()
        elif error is None and (dropped := self.dropped - self._told):
            self._told = self.dropped
            self.on_dropped(dropped)

    def _send(self) -> tuple[int, OSError | None]:
        """Return how many bytes were written, and what ended that, None where nothing did."""
        sent = 0
        try:
            while sent < len(self._waiting):
                sent += self._write(bytes(self._waiting[sent : sent + _CHUNK]))
        except OSError as error:
            return sent, error
        return sent, None

    def _discard_from_now_on(self) -> None:
        # The reader has closed the pipe. The descriptor is redirected to /dev/null, since the interpreter flushes the
        # stream when it exits, and would fail.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)
        self._write = _without_waiting(self._stream)
        self._told = self.dropped

    def _start_catching_up(self) -> None:
        self._caught_up.clear()
        atexit.register(self._caught_up.wait, _LAST_WAIT)
        threading.Thread(target=self._catch_up, name="log", daemon=True).start()

    def _catch_up(self) -> None:
        while self._waiting:
            with suppress(OSError):
                select.select([], [self._stream.fileno()], [], _LOOK_AGAIN)
            with self._lock:
                self._write_waiting()
        atexit.unregister(self._caught_up.wait)
        self._caught_up.set()


def _without_waiting(stream: ByteStream) -> Write:
    """Return what writes to a stream without waiting, where its kind allows for that.

    The descriptor itself stays as it is, since other processes may share it: a pipe or terminal is opened once more.
    """
    try:
        number = stream.fileno()
        mode = os.fstat(number).st_mode
    except OSError:
        return lambda data: _write_and_flush(stream, data)
    if stat.S_ISSOCK(mode):
        shared = socket.socket(fileno=os.dup(number))
        return lambda data: shared.send(data, socket.MSG_DONTWAIT)
    if not (stat.S_ISFIFO(mode) or stream.isatty()):
        return lambda data: os.write(number, data)
    try:
        own = os.open(f"/proc/self/fd/{number}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        # As in a container whose user does not own the pipe.
        return lambda data: _write_if_ready(number, data)
    return lambda data: os.write(own, data)


def _write_if_ready(number: int, data: bytes) -> int:
    """Write no more than a pipe that is ready takes at once."""
    poll = select.poll()
    poll.register(number, select.POLLOUT)
    if not poll.poll(0):
        raise BlockingIOError
    return os.write(number, data[: select.PIPE_BUF])


def _write_and_flush(stream: ByteStream, data: bytes) -> int:
    stream.write(data)
    stream.flush()
    return len(data)
