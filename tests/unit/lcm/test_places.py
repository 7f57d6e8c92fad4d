"""Stuck lookups for one account keep an eighth of the places at most, all together a half."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta

import pytest

from tests.support.lcm import START, SetClock
from worker.common.clock import SYSTEM_CLOCK
from worker.contract.errors import GaveWay
from worker.contract.lookup import LookupRequest
from worker.lcm.places import Place, Places


def places(prefetch: int) -> Places:
    return Places(prefetch, 5, SetClock().clock)


def kept(places: Places, *accounts: str) -> int:
    """Return how many lookups keep a place before the first one that can't."""
    for number, account in enumerate(accounts):
        try:
            places.keep(LookupRequest(account))
        except GaveWay:
            return number
    return len(accounts)


@pytest.mark.parametrize(("prefetch", "most"), [(64, 8), (16, 2), (1, 1), (7, 1)])
def test_one_account_keeps_an_eighth(prefetch: int, most: int) -> None:
    """But one at least, however few there are."""
    assert kept(places(prefetch), *["a"] * 100) == most


@pytest.mark.parametrize(("prefetch", "most"), [(64, 32), (2, 1), (1, 1)])
def test_all_together_keep_a_half(prefetch: int, most: int) -> None:
    """So that the other half is left for those that LCM answers."""
    assert kept(places(prefetch), *map(str, range(100))) == most


def test_a_place_is_free_again() -> None:
    """With the lookup's end, whatever it was, another may keep one; asked twice, a lookup keeps one only."""
    all_of_them = places(8)
    with suppress(RuntimeError), Place(all_of_them, LookupRequest("a")) as place:
        place.keep()
        place.keep()
        with pytest.raises(GaveWay):
            all_of_them.keep(LookupRequest("a"))
        raise RuntimeError
    assert kept(all_of_them, "a", "a") == 1


def test_a_place_that_was_not_kept_is_not_freed() -> None:
    """A lookup that was never stuck counts nowhere."""
    all_of_them = places(8)
    all_of_them.keep(LookupRequest("a"))
    with Place(all_of_them, LookupRequest("a")):
        pass
    assert kept(all_of_them, "a") == 0


def test_whose_deadline_being_away_would_pass_stays() -> None:
    """It can't be deferred without expiring, so it keeps its place, uncounted."""
    all_of_them = places(8)
    soon = LookupRequest("a", deadline=START + timedelta(seconds=5))
    for _ in range(10):
        with Place(all_of_them, soon) as place:
            place.keep()
    assert kept(all_of_them, "a", "a") == 1
    with pytest.raises(GaveWay):
        all_of_them.keep(LookupRequest("a", deadline=START + timedelta(seconds=6)))


def test_where_nobody_waits_all_may_stay() -> None:
    """A command that asks LCM without a broker has no queue to come back from."""
    assert kept(Places.unlimited(SYSTEM_CLOCK), *["a"] * 1000) == 1000
