"""An HTTP answer to the handshake, as far as it has come, and the pause for which it asks."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from worker.lcm.http_answer import Answer, read_answer

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("head", "answer"),
    [
        (b"", None),
        (b"HTTP/1.1 50", None),
        (b"SSH-2.0-OpenSSH_9.2\r\n", None),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n", None),
        (b"HTTP/1.1 503 Service Unavailable\r\n", Answer(503)),
        (b"HTTP/1.1 429\r\nRETRY-AFTER:7\r\n\r\n", Answer(429, "7")),
        (
            b"HTTP/1.0 503 Busy\r\nServer: x\r\nRetry-After:  120 \r\nContent-Length: 9\r\n\r\nBo",
            Answer(503, "120"),
        ),
        (b"HTTP/1.1 503 Busy\r\n\r\nRetry-After: 120\r\n", Answer(503)),
        # These took seconds and minutes to read, in which the worker stood still.
        (b"HTTP/1.1 503 Busy\r\nRetry-After:" + b" " * 60_000 + b"\r\r\n\r\n", Answer(503)),
        (
            b"HTTP/1.1 503 Busy\r\nRetry-After: a" + b" " * 60_000 + b"b\r\n\r\n",
            Answer(503, f"a{' ' * 60_000}b"),
        ),
    ],
)
def test_an_answer_is_read_as_far_as_it_has_come(head: bytes, answer: Answer | None) -> None:
    """The status is known with the first line; a body is never taken for a header."""
    assert read_answer(head) == answer


@pytest.mark.parametrize(
    ("status", "asked", "pause", "words"),
    [
        (503, "", 0, ""),
        (503, "120", 120, "a pause of 120 s (Retry-After)"),
        (429, "0", 0, ""),
        (429, "86400", 600, "a pause of 86400 s (Retry-After), of which 600 s are kept"),
        (503, "9" * 4000, 600, "of which 600 s are kept"),
        (503, "Sat, 31 Jan 2026 12:01:30 GMT", 90, "a pause of 90 s (Retry-After)"),
        (503, "Sat, 31 Jan 2026 12:01:30 -0000", 90, "a pause of 90 s (Retry-After)"),
        (503, "Sat, 31 Jan 2026 11:59:00 GMT", 0, ""),
        (503, "soon", 0, ""),
        (503, "-5", 0, ""),
        (503, "Mon, 01 Jan 99999999999999999999 00:00:00 GMT", 0, ""),
        (503, "Mon, 01 Jan 2026 99999999999999999999:00:00 GMT", 0, ""),
        (401, "120", 0, ""),
    ],
)
def test_the_pause_that_is_kept(status: int, asked: str, pause: float, words: str) -> None:
    """Seconds or a date, of a 429 or 503 alone, and 10 minutes at most; what makes no sense asks for nothing."""
    text, kept = Answer(status, asked).told(NOW)
    assert (kept, text.startswith(f"answered HTTP {status}")) == (pause, True)
    assert text.endswith(words)
    assert ("Retry-After" in text) == bool(words)
