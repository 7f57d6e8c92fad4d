"""What a worker tells all others, every two seconds: one entry of the fleet's log."""

from __future__ import annotations

from typing import Annotated, Self

import msgspec
from msgspec import Meta

PER_RATE = 1000
"""A rate is counted in exchanges per so many seconds, since shares are whole numbers."""

_Count = Annotated[int, Meta(ge=0, le=10**12)]
_Name = Annotated[str, Meta(max_length=256)]
_Reason = Annotated[str, Meta(max_length=32)]
_MOST_REASONS = 16
_LARGEST = 64 * 1024
_LONGEST_HOLD = 700  # seconds; the longest `lcm.reply_timeout` is 600


class Amounts(msgspec.Struct, frozen=True):
    """Sessions, and exchanges in 1,000 s: a limit (0 = none), a share, or a claim."""

    sessions: _Count = 0
    rate: _Count = 0

    def least(self, other: Self) -> Amounts:
        """Return the less of each."""
        return Amounts(min(self.sessions, other.sessions), min(self.rate, other.rate))


class Beat(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One beat.

    Attributes:
        id: the worker, by a name that no other and no later one has.
        name: the worker as the log names it.
        number: counts its beats from 1.
        since: the position of its first beat in the log, once it has read that; the oldest come first.
        hold: for how many seconds after sending this beat it may use what this beat is granted.
        limit: what all may use together, as this worker's settings have it; 0 is no limit.
        want: the most that it can use.
        claim: what it asks for. Where that is less than it has, it uses no more from the moment of sending.
        held: how many sessions it has.
        gone: workers not heard of for longer than they may use anything, and the position of their last beat.
        paused: why it takes no jobs, in the words of `worker.paused`.
        leaves: that it has closed everything; this is its last beat.
    """

    id: _Name
    name: _Name
    number: _Count
    since: _Count | None = None
    hold: Annotated[float, Meta(ge=0, le=_LONGEST_HOLD)]
    limit: Amounts = Amounts()
    want: Amounts = Amounts()
    claim: Amounts = Amounts()
    held: _Count = 0
    gone: dict[_Name, _Count] = {}
    paused: Annotated[tuple[_Reason, ...], Meta(max_length=_MOST_REASONS)] = ()
    leaves: bool = False


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(Beat)


def encode(beat: Beat) -> bytes:
    """Write a beat as JSON."""
    return _ENCODER.encode(beat)


def decode(body: bytes) -> Beat:
    """Read a beat. Raises ValueError: it is none, or has more than 64 KiB."""
    if len(body) > _LARGEST:
        raise ValueError(f"{len(body)} bytes are too many for a beat")
    try:
        return _DECODER.decode(body)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
