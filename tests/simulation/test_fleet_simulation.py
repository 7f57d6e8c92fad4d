"""A fleet under random joins, departures, crashes, stops, cuts and slow brokers, on virtual clocks; see README.md."""

from __future__ import annotations

import random

import pytest

from tests.simulation.fleet import trial
from worker.fleet import seat as seats
from worker.fleet.beat import Amounts, Beat
from worker.fleet.roster import Roster
from worker.fleet.seat import Seat

_TRIALS = 20


@pytest.mark.parametrize("kept", [0, 150], ids=["whole-log", "log-of-150"])
def test_the_sum_never_exceeds_the_limit_and_no_share_stays_unused(kept: int) -> None:
    """Whatever happens, LCM never has one session more than the limit, and has all of them once things are calm."""
    first = random.randrange(10**9)  # noqa: S311 - a seed is no secret
    for number in range(first, first + _TRIALS):
        found = trial(number, kept=kept)
        assert not found.violations, f"trial({number}, kept={kept}): {found.violations[:3]}"


def found_by_trials() -> bool:
    """Whether one of the first trials goes wrong."""
    return any(trial(number).violations for number in range(16))


def test_a_successor_that_does_not_wait_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trials find a fleet in which who is silent is taken over from too early."""
    monkeypatch.setattr(seats, "MARGIN", -8.0)
    assert found_by_trials()


def test_a_share_without_an_end_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trials find a worker that uses its share although it can't beat."""
    monkeypatch.setattr(Seat, "ends_at", property(lambda _: 1e9))
    assert found_by_trials()


def test_a_share_used_before_it_was_read_back_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trials find a worker that takes more as soon as it has claimed it."""

    def usable(seat: Seat, now: float) -> Amounts:
        claims = [seat._granted(), *(claim for _, claim in seat._sent.values())]
        return max(claims, key=lambda each: each.sessions) if now < seat.ends_at else Amounts()

    monkeypatch.setattr(Seat, "_usable", usable)
    assert found_by_trials()


def test_a_worker_declared_gone_though_it_has_beaten_since_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trials find a roster that drops members without looking at the position."""
    apply = Roster.apply

    def drop_all(roster: Roster, beat: Beat, offset: int) -> None:
        for gone in set(beat.gone) - {beat.id}:
            roster.members.pop(gone, None)
        apply(roster, beat, offset)

    monkeypatch.setattr(Roster, "apply", drop_all)
    assert found_by_trials()
