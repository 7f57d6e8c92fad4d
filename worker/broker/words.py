"""What a peer says when it refuses something, in its own words."""

from __future__ import annotations

from collections.abc import Iterator

from aiormq.channel import EXCEPTION_MAPPING as CHANNEL_ERRORS
from aiormq.connection import EXCEPTION_MAPPING as CONNECTION_ERRORS
from aiormq.exceptions import AMQPChannelError, ConnectionClosed
from pamqp import commands
from pamqp.exceptions import PAMQPException
from pamqp.frame import unmarshal

from worker.broker.remedies import remedy_for

# The library keeps either the reply code or, as the class of the error, what it stands for.
_CODES = {error: code for errors in (CHANNEL_ERRORS, CONNECTION_ERRORS) for code, error in errors.items()}
Refusal = tuple[str, str]
"""What the broker says, and the remedy."""


def refusal_in(heard: bytes) -> Refusal | None:
    """Return the broker's Connection.Close, with its remedy, from what it said while a connection was being opened."""
    for frame in _frames(heard):
        if isinstance(frame, commands.Connection.Close):
            said = f"{frame.reply_code} {frame.reply_text}"
            return said, remedy_for(said)
    return None


def words_of(error: ConnectionClosed | AMQPChannelError) -> str:
    """Return the code and the text with which the broker closed a connection or channel."""
    *code, said = error.args or ("closed",)
    return f"{code[0] if code else _CODES.get(type(error), '')} {said}".strip()


def _frames(heard: bytes) -> Iterator[object]:
    while heard:
        try:
            consumed, _, frame = unmarshal(heard)
        except (PAMQPException, ValueError, KeyError):  # the rest has not come, or is no frame
            return
        yield frame
        heard = heard[consumed:]
