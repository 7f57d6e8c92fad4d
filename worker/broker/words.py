"""What a peer says when it refuses something: the broker in its own words, or somebody who is no such broker."""

from __future__ import annotations

from collections.abc import Iterator

from aiormq.channel import EXCEPTION_MAPPING as CHANNEL_ERRORS
from aiormq.connection import EXCEPTION_MAPPING as CONNECTION_ERRORS
from aiormq.exceptions import AMQPChannelError, ConnectionClosed
from pamqp import commands
from pamqp.exceptions import PAMQPException
from pamqp.frame import unmarshal

from worker.broker.remedies import NOT_AMQP, SILENCE, TLS, remedy_for
from worker.common.text import printable, quote

# The library keeps either the reply code or, as the class of the error, what it stands for.
_CODES = {error: code for errors in (CHANNEL_ERRORS, CONNECTION_ERRORS) for code, error in errors.items()}
_HEADER = b"AMQP"
_OUR_HEADER = b"AMQP\x00\x00\x09\x01"
Refusal = tuple[str, str]
"""What the peer is or says, and the remedy."""


def refusal_in(heard: bytes) -> Refusal | None:
    """Tell why a peer that has said this opens no connection; None where its words don't tell."""
    if heard.startswith(b"\x01"):
        return _broker_refusal(heard)
    if heard.startswith(_OUR_HEADER):
        return "it turned the connection away, although it speaks AMQP 0-9-1 as this worker does", SILENCE
    if heard.startswith(_HEADER):
        return f"it answers with the header of {_version(heard)}, and this worker speaks AMQP 0-9-1", NOT_AMQP
    if heard[:1] in {b"\x15", b"\x16"} and heard[1:2] == b"\x03":
        return "it speaks TLS", TLS
    if not heard:
        return None
    first_line = quote(printable(heard.split(b"\n")[0].decode(errors="replace").rstrip()))
    return f"it is {_kind_of(heard)}: it says {first_line}", NOT_AMQP


def words_of(error: ConnectionClosed | AMQPChannelError) -> str:
    """Return the code and the text with which the broker closed a connection or channel."""
    # A channel that is closed as if we had asked for it has neither code nor text.
    *code, said = error.args if any(error.args) else ("closed",)
    return f"{code[0] if code else _CODES.get(type(error), '')} {said}".strip()


def _kind_of(heard: bytes) -> str:
    start = heard.lstrip()[:9].lower()
    if start.startswith((b"http/", b"<html", b"<!doctype")):
        return "an HTTP server"
    if start.startswith(b"ssh-"):
        return "an SSH server"
    return "no broker"


def _version(heard: bytes) -> str:
    # The protocol id is 0 for AMQP itself, in 1.0 also 2 (TLS) and 3 (SASL); before 0-9 it was 1, then an instance.
    protocol, *version = heard[len(_HEADER) : 8] or b"\0"
    if protocol in {0, 2, 3} and version[:1] == [1]:
        return "AMQP 1.0"
    return f"AMQP {'-'.join(map(str, version if protocol == 0 else version[1:]))}".strip()


def _broker_refusal(heard: bytes) -> Refusal | None:
    for frame in _frames(heard):
        if isinstance(frame, commands.Connection.Close):
            said = f"{frame.reply_code} {frame.reply_text}"
            return said, remedy_for(said)
    return None


def _frames(heard: bytes) -> Iterator[object]:
    while heard:
        try:
            consumed, _, frame = unmarshal(heard)
        except (PAMQPException, ValueError, KeyError):  # the rest has not come, or is no frame
            return
        yield frame
        heard = heard[consumed:]
