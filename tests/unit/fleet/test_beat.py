"""Beats as bytes."""

from __future__ import annotations

import pytest

from worker.fleet.beat import Amounts, Beat, decode, encode

BEAT = Beat(
    id="a 1", name="a", number=3, hold=20.0, claim=Amounts(5, 2000), gone={"b 2": 17}, paused=("outage",)
)


def test_a_beat_is_read_as_it_was_written() -> None:
    """All that a beat says comes through, and defaults take no room."""
    assert decode(encode(BEAT)) == BEAT
    assert b"leaves" not in encode(BEAT)


@pytest.mark.parametrize(
    "body",
    [
        b" " * 65_536 + encode(BEAT), b"", b"[]", b"{}", b"\xff", b"[" * 100_000,
        encode(BEAT).replace(b'"sessions":5', b'"sessions":-5'),
        encode(BEAT).replace(b'"sessions":5', b'"sessions":1' + b"0" * 30),
        encode(BEAT).replace(b'"number":3', b'"number":3.5'),
        encode(BEAT).replace(b'"hold":20.0', b'"hold":701'),
        encode(BEAT).replace(b'"a 1"', b'"' + b"a" * 300 + b'"'),
    ],
)  # fmt: skip
def test_what_is_no_beat_is_refused(body: bytes) -> None:
    """Whoever writes into the log, what can't be a beat is a ValueError and nothing else."""
    with pytest.raises(ValueError):  # noqa: PT011 - the library's words
        decode(body)
