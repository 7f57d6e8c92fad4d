"""What the log of beats says: who is there, and what each may use."""

from __future__ import annotations

import pytest

from worker.fleet.beat import Amounts, Beat
from worker.fleet.roster import MOST_MEMBERS, Roster, shares


def beat(name: str, claim: int = 0, *, limit: int = 10, want: int = 10, **said: object) -> Beat:
    amounts = {"limit": Amounts(limit), "want": Amounts(want, 1), "claim": Amounts(claim)}
    return Beat(id=name, name=name, number=1, hold=20.0, **(amounts | said))  # type: ignore[arg-type]


def roster(*beats: Beat) -> Roster:
    made = Roster()
    for offset, each in enumerate(beats):
        made.apply(each, offset)
    return made


def grants(of: Roster) -> dict[str, int]:
    return {name: member.grant.sessions for name, member in of.members.items()}


@pytest.mark.parametrize(
    ("wants", "limit", "given"),
    [
        ([5, 5, 5], 7, [3, 2, 2]),
        ([1, 9, 9], 11, [1, 5, 5]),
        ([1, 1], 10, [1, 1]),
        ([4, 4, 4], 2, [1, 1, 0]),
        ([3, 3], 0, [3, 3]),
        ([0, 5], 4, [0, 4]),
        ([], 4, []),
    ],
)
def test_shares_are_equal_the_rest_goes_to_the_first_and_none_is_left(
    wants: list[int], limit: int, given: list[int]
) -> None:
    """What one can't use goes to the others; without a limit each has what it wants."""
    assert shares(wants, limit) == given


def test_a_grant_changes_at_its_own_beats_alone() -> None:
    """A newcomer gets what is left; the others' beats give it nothing, its next one does."""
    found = roster(beat("a", 10), beat("b", 5))
    assert grants(found) == {"a": 10, "b": 0}
    found.apply(beat("a", 5), 2)
    assert grants(found) == {"a": 5, "b": 0}
    found.apply(beat("b", 5), 3)
    assert grants(found) == {"a": 5, "b": 5}


def test_who_leaves_or_is_declared_gone_has_nothing() -> None:
    """The last beat of one who leaves drops it, and so does another's word about its silence since a position."""
    assert grants(roster(beat("a", 10), beat("a", leaves=True), beat("b", 5))) == {"b": 5}
    assert grants(roster(beat("a", 10), beat("b", 5, gone={"a": 0}))) == {"b": 5}


def test_who_has_beaten_since_is_not_gone() -> None:
    """Who calls a silence over that ended meanwhile changes nothing; nobody declares itself gone."""
    assert grants(roster(beat("a", 5), beat("a", 5), beat("b", 5, gone={"a": 0, "b": 9}))) == {"a": 5, "b": 5}


def test_the_least_limit_holds() -> None:
    """Of limits that differ the least is the one of all; who has none neither limits nor shares."""
    found = roster(beat("a", 3, limit=7), beat("b", limit=4), beat("c", limit=0))
    assert found.limit() == Amounts(4)
    assert found.fair(beat("a", limit=7)) == Amounts(2, 1)
    assert found.fair(beat("c", limit=0)) == Amounts()


def test_the_oldest_has_the_remainder() -> None:
    """The order is that of the first beats, which beats tell once the log no longer has them."""
    found = roster(beat("b", since=90), beat("a", since=12), beat("c"))
    assert [found.fair(beat(name)).sessions for name in "abc"] == [3, 3, 4]


def test_what_a_beat_says_of_others_is_not_kept() -> None:
    """A thousand members, each with a beat of 64 KiB, would take that much of every worker's memory."""
    found = roster(beat("a", 1, gone={f"n{number}": 0 for number in range(1000)}))
    assert found.members["a"].beat.gone == {}


def test_there_are_so_many_members_and_no_more() -> None:
    """Whoever writes into the log can't fill the memory of all; who is known by then stays."""
    found = roster(*(beat(f"n{number}", 1) for number in range(MOST_MEMBERS + 5)))
    assert len(found.members) == MOST_MEMBERS
    assert "n1004" not in found.members
    found.apply(beat("n0", leaves=True), 2000)
    found.apply(beat("n1004"), 2001)
    assert "n1004" in found.members
