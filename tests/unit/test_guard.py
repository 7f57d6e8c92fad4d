"""The guard trips when nearly all of a window of jobs, for different accounts, fail for good."""

from __future__ import annotations

import pytest

from worker.guard import Guard


def told(guard: Guard, *ends: tuple[str, str | None]) -> list[bool]:
    return [guard.job_ended(account, code) for account, code in ends]


def test_a_window_of_rejections_trips_it() -> None:
    """The last of them says so, and none before."""
    guard = Guard(window=10, ratio=0.9)
    ends = [(str(n), "lcm_rejected") for n in range(10)]
    assert told(guard, *ends) == [False] * 9 + [True]
    assert guard.tripped


@pytest.mark.parametrize("code", ["timeout", "invalid_job", "expired", "poison"])
def test_other_failures_do_not(code: str) -> None:
    """What may pass, and what producers did, is no sign of a bad deploy."""
    guard = Guard(window=10, ratio=0.9)
    told(guard, *[(str(n), code) for n in range(30)])
    assert not guard.tripped


def test_one_account_counts_once() -> None:
    """A producer that repeats one bad job does not stop all others."""
    guard = Guard(window=10, ratio=0.9)
    told(guard, *[("a", "lcm_rejected")] * 50)
    assert not guard.tripped


def test_good_jobs_keep_it_from_tripping() -> None:
    """Two good ones in ten are enough at a ratio of 0.9."""
    guard = Guard(window=10, ratio=0.9)
    told(guard, *[(str(n), None if n % 5 == 0 else "lcm_rejected") for n in range(100)])
    assert not guard.tripped


def test_a_good_job_ends_it() -> None:
    """While it is tripped failures change nothing; the first success resets it."""
    guard = Guard(window=3, ratio=1.0)
    told(guard, *[(str(n), "internal") for n in range(3)])
    assert told(guard, ("x", "internal"), ("y", None)) == [False, True]
    assert not guard.tripped
    assert repr(guard) == "<Guard watching, 0 of the last 0 suspicious>"


def test_ratio_0_is_off() -> None:
    """It never trips."""
    guard = Guard(window=2, ratio=0.0)
    told(guard, *[(str(n), "internal") for n in range(10)])
    assert not guard.tripped
