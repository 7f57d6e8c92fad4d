"""The trace that a message names: W3C Trace Context, read strictly, since anybody writes it."""

from __future__ import annotations

from typing import Any

import pytest

from worker.contract.trace_context import trace_id_of, trace_of

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
VALID = f"00-{TRACE}-{SPAN}-01"


@pytest.mark.parametrize(
    "traceparent",
    [
        VALID,
        f"00-{TRACE}-{SPAN}-00",
        f"00-{TRACE}-{SPAN}-ff",
        f"01-{TRACE}-{SPAN}-01",
        f"cc-{TRACE}-{SPAN}-01-what-a-later-version-may-add",
    ],
)
def test_a_valid_traceparent_names_its_trace(traceparent: str) -> None:
    """Whatever its flags are; one of a later version may have more fields."""
    assert trace_id_of(trace_of({"traceparent": traceparent, "tracestate": "a=b"})) == TRACE


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        VALID[:-1],
        f"{VALID}0",
        f"{VALID}-more",
        f"01-{TRACE}-{SPAN}-01more",
        f"ff-{TRACE}-{SPAN}-01",
        f"0-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        VALID.upper(),
        VALID.replace("a", "g"),
        VALID.replace("-", "_"),
        f"00-{TRACE}-{SPAN}",
        f" {VALID}",
        f"{VALID}\n",
        f"{VALID}\r\nforged",
        f'00-{TRACE}"}}\n{{"event":"forged"-{SPAN}-01',
        f"00-{TRACE.translate({ord('0') + n: 0xFF10 + n for n in range(10)})}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01\x00",
        "00-" * 40_000,
        VALID * 2_000,
    ],
    ids=lambda value: repr(value[:80]),
)
def test_an_invalid_traceparent_names_none(traceparent: str) -> None:
    """Another length, version ff, zeros, capitals, other digits or characters, line breaks, or far too much."""
    assert trace_id_of(trace_of({"traceparent": traceparent})) == ""


@pytest.mark.parametrize(
    "traceparent", [VALID.encode(), 7, None, True, [VALID], {"traceparent": VALID}], ids=repr
)
def test_a_traceparent_that_is_no_text_is_left_out(traceparent: Any) -> None:
    """Bytes, numbers, lists and tables are no trace context."""
    assert trace_of({"traceparent": traceparent, "tracestate": "a=b"}) == {"tracestate": "a=b"}


def test_the_trace_context_is_two_headers() -> None:
    """Baggage and headers in other letter case are no part of it."""
    headers = {
        "traceparent": VALID,
        "tracestate": "a=b",
        "baggage": "account=1",
        "Traceparent": "x",
        "other": 1,
    }
    assert trace_of(headers) == {"traceparent": VALID, "tracestate": "a=b"}
