"""Headers are left out until the others fit into a frame: foreign ones, the largest first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.broker import sizes
from worker.broker.fields import WritableProperties, size_of
from worker.broker.sizes import DROPPED_HEADER, fitted_properties, limit_in
from worker.contract.errors import MessageTooLarge
from worker.contract.message import Properties


def fitted(headers: dict[str, Any], frame_max: int) -> dict[str, Any]:
    found = fitted_properties(Properties(headers=headers), frame_max, delivery_mode=2, user_id=None)
    assert not frame_max or len(found.marshal()) + 20 <= frame_max
    return dict(found.headers or {})


def test_what_fits_stays() -> None:
    """Headers that fit, small or of any kind, are written as they are; so are all without a limit."""
    for headers, frame_max in (({"a": "b"}, 4096), ({"a": [1, {"b": b"c"}]}, 4096), ({"a": "x" * 9000}, 0)):
        assert fitted(headers, frame_max) == headers


def test_the_largest_foreign_headers_are_left_out_first() -> None:
    """One after the other until the rest fits, named in the order in which they went; own ones stay."""
    headers = {"b": "x" * 3000, "a": "x" * 4000, "c": "x" * 100, "outcome-error-reason": "x" * 3500}
    assert fitted(headers, 4096) == {
        "c": "x" * 100,
        "outcome-error-reason": "x" * 3500,
        DROPPED_HEADER: "a,b",
    }


def test_a_history_goes_before_the_message_does() -> None:
    """The deaths before the last replay are the worker's own, but a letter is better off without them."""
    assert fitted({"outcome-history": ["x" * 5000], "outcome-job-id": "j"}, 4096) == {
        "outcome-job-id": "j",
        DROPPED_HEADER: "outcome-history",
    }


def test_own_headers_that_do_not_fit_are_an_error() -> None:
    """Nothing is left to leave out: the message can't be sent."""
    with pytest.raises(MessageTooLarge, match="frame_max is 4096"):
        fitted({"outcome-error-reason": "x" * 5000, "a": "b"}, 4096)


def test_many_dropped_headers_are_named_within_bounds() -> None:
    """The names of a thousand headers do not outgrow the frame in their turn."""
    found = fitted({f"header {n}": "x" * 100 for n in range(1000)}, 8192)
    assert len(found[DROPPED_HEADER]) <= 1024


def test_each_header_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pitfall: a frame full of tiny headers, written anew for each one left out, stopped a worker for minutes."""
    measured: list[int] = []

    def size(table: Mapping[str, Any]) -> int:
        measured.append(len(table))
        return size_of(table)

    monkeypatch.setattr(sizes, "size_of", size)
    headers = {f"{n}": 1.5 for n in range(2000)}
    kept = fitted(headers, 20_000)
    assert headers.items() >= {name: value for name, value in kept.items() if name != DROPPED_HEADER}.items()
    assert 1000 < len(kept) < 2000
    assert sum(measured) <= 3 * len(headers)


@given(
    st.dictionaries(
        st.sampled_from(
            ["a", "b", "c", "outcome-job-id", "outcome-history", DROPPED_HEADER, "\u00e4" * 100, "x" * 255]
        ),
        st.one_of(st.text(max_size=3000), st.lists(st.integers(0, 9), max_size=500), st.floats()),
    )
)
def test_no_more_is_left_out_than_has_to_be(headers: dict[str, Any]) -> None:
    """What is left fits, and with the last one that was left out it would not."""
    try:
        kept = fitted(headers, 4096)
    except MessageTooLarge:
        return
    names = str(kept.get(DROPPED_HEADER, "")).split(",")
    if kept != headers and DROPPED_HEADER not in headers and len(names) > 1:
        before = {name: headers[name] for name in headers if name not in names[:-1]}
        before[DROPPED_HEADER] = ",".join(names[:-1])
        assert len(WritableProperties(headers=before).marshal()) + 20 > 4096


@pytest.mark.parametrize(
    ("reason", "limit"),
    [
        ("PRECONDITION_FAILED - message size 60001 is larger than configured max size 60000", 60_000),
        ("PRECONDITION_FAILED - inequivalent arg 'x-overflow' for queue", None),
    ],
)
def test_the_limit_is_read_from_the_brokers_reason(reason: str, limit: int | None) -> None:
    """The size is the one that the broker names; other reasons name none."""
    assert limit_in(reason) == limit
