"""One worker's place: when it beats, what it claims, and until when it may use what it has."""

from __future__ import annotations

from worker.fleet.beat import Amounts, Beat
from worker.fleet.roster import MOST_MEMBERS
from worker.fleet.seat import EVERY, MARGIN, QUICKLY, Seat

HOLD = 20.0


def seat(name: str = "a", want: int = 10) -> Seat:
    return Seat(name, name, Amounts(10), Amounts(want), 10.0)


class Log:
    """The log, which both seats read at once or not."""

    def __init__(self, *seats: Seat) -> None:
        self.seats = seats
        self.offset = 0

    def add(self, beat: Beat, now: float, *readers: Seat) -> None:
        for each in readers or self.seats:
            each.read(beat, self.offset, now)
        self.offset += 1


def test_nothing_may_be_used_before_a_beat_was_read_back() -> None:
    """A new worker beats at once, and has its share with its own beat."""
    one = seat()
    assert one.due(100.0, 0) <= 100.0
    beat = one.beat(100.0, 0)
    assert (beat.claim, one.share(100.0)) == (Amounts(10), Amounts())
    Log(one).add(beat, 100.1)
    assert one.share(100.1) == Amounts(10)


def test_a_share_ends_by_the_time_of_sending() -> None:
    """It may be used so long after sending, however late it was read; nothing is asked that could end later."""
    one = seat()
    beat = one.beat(100.0, 0)
    Log(one).add(beat, 104.0)
    assert (one.hold, one.ends_at, one.asks_until) == (HOLD, 120.0, 110.0)
    assert one.share(119.9) == Amounts(10)
    assert one.share(120.0) == Amounts()


def test_a_claim_of_less_is_what_is_held_and_holds_at_once() -> None:
    """With a newcomer, the share falls to what is fair; what is busy still is claimed until it is done."""
    one, other = seat("a"), seat("b")
    log = Log(one, other)
    log.add(one.beat(100.0, 0), 100.0)
    log.add(other.beat(101.0, 0), 101.0)
    assert (one.share(101.0), other.share(101.0)) == (Amounts(5), Amounts())
    beat = one.beat(101.2, 8)
    assert beat.claim == Amounts(8)
    log.add(beat, 101.2)
    beat = one.beat(101.4, 5)
    log.add(beat, 101.4, one)
    log.add(other.beat(101.4, 0), 101.5, one)
    assert one.share(101.5) == Amounts(5)


def test_one_that_was_not_read_back_binds_still() -> None:
    """A beat whose fate is unknown may have given up what it did not claim."""
    one, other = seat("a"), seat("b")
    log = Log(one, other)
    log.add(one.beat(100.0, 0), 100.0)
    log.add(other.beat(100.1, 0), 100.1)
    one.beat(102.0, 5)
    log.add(other.beat(102.1, 0, leaves=True), 102.1)
    assert one.share(102.2) == Amounts(5)
    log.add(one.beat(104.0, 5), 104.0)
    assert one.share(104.0) == Amounts(10)


def test_beats_come_regularly_and_soon_where_they_change_something() -> None:
    """Every two seconds; a fifth of a second after the last where more, or less, would be granted."""
    one, other = seat("a"), seat("b")
    log = Log(one, other)
    log.add(one.beat(100.0, 0), 100.0)
    assert one.due(100.0, 10) == 100.0 + EVERY
    log.add(other.beat(100.1, 0), 100.1)
    assert one.due(100.1, 0) == 100.0 + QUICKLY
    assert one.due(100.1, 10) == 100.0 + EVERY
    assert other.due(100.1, 0) == 100.1 + EVERY


def test_who_is_silent_is_declared_gone_after_its_time_and_a_margin() -> None:
    """From reading its last beat, and by the hold that it told of itself."""
    one, other = seat("a"), seat("b")
    log = Log(one, other)
    log.add(other.beat(90.0, 0), 95.0)
    gone_at = 95.0 + HOLD + MARGIN
    log.add(one.beat(gone_at - 1, 0), gone_at - 1)
    assert one.due(gone_at - 0.9, 0) == gone_at
    assert one.beat(gone_at - 0.1, 0).gone == {}
    assert one.beat(gone_at, 0).gone == {"b": 0}


def test_forgotten_is_begun_anew() -> None:
    """After the log was made anew nothing may be used, and the next beat is a newcomer's."""
    one = seat()
    Log(one).add(one.beat(100.0, 0), 100.0)
    one.forget()
    assert (one.share(100.1), one.size) == (Amounts(), 0)
    assert one.beat(102.0, 0).since is None


def test_who_is_no_member_is_not_kept_in_mind() -> None:
    """Whoever beats under ever new names costs nothing beyond the members that there may be."""
    one = seat()
    log = Log(one)
    for number in range(MOST_MEMBERS + 5):
        log.add(Beat(id=f"n{number}", name="n", number=1, hold=HOLD), 100.0)
    assert one._heard.keys() == one.roster.members.keys()
    log.add(Beat(id="n0", name="n", number=2, hold=HOLD, leaves=True), 100.0)
    log.add(Beat(id="n1", name="n", number=2, hold=HOLD, gone={"n2": 2}), 100.0)
    assert one._heard.keys() == one.roster.members.keys()
    assert len(one._heard) == MOST_MEMBERS - 2
