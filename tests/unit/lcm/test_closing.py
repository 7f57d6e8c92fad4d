"""What a closed websocket comes to: words for the log, whether it is a refusal, the error of its exchange."""

from __future__ import annotations

import pytest
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK, PayloadTooBig
from websockets.frames import Close

from worker.contract.errors import ConnectionLost, ReplyTooLarge
from worker.lcm.closing import how_it_closed, is_full, is_refusal, loss_of, said_of


@pytest.mark.parametrize(
    ("code", "words", "refusal"),
    [
        (1000, "closed by LCM with code 1000", False),
        (1008, "closed by LCM with code 1008 (policy violation)", True),
        (1011, "closed by LCM with code 1011", False),
        (3000, "closed by LCM with code 3000 (unauthorized)", True),
        (3003, "closed by LCM with code 3003 (forbidden)", True),
        (4401, "closed by LCM with code 4401 (unauthorized)", True),
        (4403, "closed by LCM with code 4403 (forbidden)", True),
        (4409, "closed by LCM with code 4409", False),
    ],
)
def test_the_code_tells_a_refusal(code: int, words: str, refusal: bool) -> None:
    """Codes that say what HTTP 401 and 403 say are refusals; others may pass."""
    gone = ConnectionClosedError(Close(code, "token expired"), Close(code, ""), rcvd_then_sent=True)
    assert (how_it_closed(gone), said_of(gone), is_refusal(gone)) == (words, "token expired", refusal)


@pytest.mark.parametrize(("code", "full"), [(4429, True), (1013, True), (1000, False), (4401, False)])
def test_the_code_tells_that_lcm_is_full(code: int, full: bool) -> None:
    """Too many requests and try again later speak of room, where LCM says so; our own close does not."""
    assert is_full(ConnectionClosedError(Close(code, ""), None)) == full
    assert not is_full(ConnectionClosedError(None, Close(code, "")))


def test_what_lcm_says_stays_on_one_line() -> None:
    """LCM's reason can't break a line or send control codes to a terminal."""
    gone = ConnectionClosedError(Close(4401, "token\n\x1b[2Jexpired"), None)
    assert said_of(gone) == "token\\n\\x1b[2Jexpired"


@pytest.mark.parametrize("reason", ["x" * 123, "é" * 60])
def test_a_reason_that_fills_its_frame_counts_as_cut(reason: str) -> None:
    """LCM may have cut it within a secret, whose beginning is masked before "…"."""
    assert said_of(ConnectionClosedError(Close(1008, reason), None)) == f"{reason}…"
    assert said_of(ConnectionClosedError(Close(1008, reason[:50]), None)) == reason[:50]


def test_a_close_of_our_own_is_no_refusal() -> None:
    """Whatever code we close with, and where there was no close at all, LCM has not refused anything."""
    ours, lost = ConnectionClosedOK(None, Close(1008, "x")), ConnectionClosedError(None, None)
    assert [(how_it_closed(gone), said_of(gone), is_refusal(gone)) for gone in (ours, lost)] == [
        ("closed by us with code 1008", "", False),
        ("connection lost", "", False),
    ]


def test_the_exchange_under_way_is_told_why() -> None:
    """LCM's reason comes apart from our words, so that a log without LCM's texts can leave it out."""
    error = loss_of(ConnectionClosedError(Close(1012, "restart"), None), "restart")
    assert isinstance(error, ConnectionLost)
    assert str(error) == "the session closed in mid-exchange: closed by LCM with code 1012"
    assert error.remote_message == "restart"
    large = ConnectionClosedError(None, Close(1009, ""))
    large.__cause__ = PayloadTooBig(2, 1)
    assert isinstance(loss_of(large, ""), ReplyTooLarge)
