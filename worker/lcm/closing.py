"""How a websocket closed: in words, what LCM said to it, whether that is a refusal, and the error of its exchange."""

from __future__ import annotations

from collections.abc import Mapping

from websockets.exceptions import ConnectionClosed, PayloadTooBig, TooManyFragments

from worker.common.text import printable
from worker.contract.errors import ConnectionLost, JobError, MalformedReply, ReplyTooLarge

# A close code can say what a handshake says by 401 and 403: after trying to log in, or once a token has expired.
_REFUSALS: Mapping[int, str] = {
    1008: "policy violation",
    3000: "unauthorized",
    3003: "forbidden",
    4401: "unauthorized",
    4403: "forbidden",
}
# Bytes; a close frame has room for 123, to which LCM may have cut its words.
_FULL_REASON = 115
# Too many requests, after the HTTP status of that number; try again later.
_FULL = frozenset({4429, 1013})


def how_it_closed(gone: ConnectionClosed) -> str:
    """Tell who closed a websocket, and with which close code."""
    if gone.rcvd is not None:
        code = gone.rcvd.code
        return f"closed by LCM with code {code}" + (f" ({_REFUSALS[code]})" if code in _REFUSALS else "")
    if gone.sent is not None:
        return f"closed by us with code {gone.sent.code}"
    return "connection lost"


def said_of(gone: ConnectionClosed) -> str:
    """Return the reason that LCM gave with its close code, "" where it gave none; "…" follows one that may be cut."""
    reason = gone.rcvd.reason if gone.rcvd is not None else ""
    return printable(f"{reason}…" if len(reason.encode()) >= _FULL_REASON else reason)


def is_refusal(gone: ConnectionClosed) -> bool:
    """Whether LCM closed because of who we are: insisting is no remedy, and may lock an account out."""
    return gone.rcvd is not None and gone.rcvd.code in _REFUSALS


def is_full(gone: ConnectionClosed) -> bool:
    """Whether LCM closed because it has no room for one more session, or none for now."""
    return gone.rcvd is not None and gone.rcvd.code in _FULL


def loss_of(gone: ConnectionClosed, said: str) -> JobError:
    """Return the error of the exchange that was under way; `said` is LCM's reason as it may be told."""
    match gone.__cause__:
        case PayloadTooBig():
            return ReplyTooLarge("LCM's reply is larger than lcm.max_reply")
        case TooManyFragments():
            return MalformedReply("LCM's reply comes in too many fragments")
    text = f"the session closed in mid-exchange: {how_it_closed(gone)}"
    return ConnectionLost(text, remote_message=said)
