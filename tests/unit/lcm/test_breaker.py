"""The breaker says when LCM is out and when it is back, and when to probe."""

from __future__ import annotations

from worker.lcm.breaker import Breaker


def longest(_low: float, high: float) -> float:
    return high


def breaker(failures: int = 3) -> Breaker:
    return Breaker(failures, probe_delay=1.0, probe_max_delay=30.0)


def test_no_session_is_an_outage_at_once() -> None:
    """The first opening that fails starts it, once; a session that opens ends it."""
    lcm = breaker()
    started = lcm.session_not_opened("refused", now=5.0)
    assert started is not None
    assert (started.since, started.reason, started.by_exchanges) == (5.0, "refused", False)
    assert lcm.session_not_opened("refused", now=6.0) is None
    ended = lcm.session_opened()
    assert ended is not None
    assert (ended.probes, lcm.outage) == (1, None)


def test_the_reason_of_an_outage_is_that_of_the_last_failure() -> None:
    """Pitfall: LCM comes back with another password, and the reason is still that nobody listened."""
    lcm = breaker(failures=1)
    lcm.session_not_opened("connection refused", now=1.0)
    lcm.session_not_opened("HTTP 401", now=2.0, refused=True)
    assert (lcm.outage and (lcm.outage.since, lcm.outage.reason)) == (1.0, "HTTP 401")
    lcm.session_opened()
    for reason in ("timeout", "malformed_reply"):
        lcm.not_answered("a", reason, 3.0)
    assert lcm.outage
    assert lcm.outage.reason == "malformed_reply"


def test_different_accounts_that_fail_in_a_row_are_an_outage() -> None:
    """The number that counts is that of different accounts."""
    lcm = breaker()
    assert [lcm.not_answered(account, "timeout", 1.0) for account in ("a", "b")] == [None, None]
    started = lcm.not_answered("c", "timeout", 2.0)
    assert started is not None
    assert started.by_exchanges


def test_one_silent_account_is_no_outage() -> None:
    """Pitfall: LCM meets one account with silence for ever, and its failures alone look like an outage."""
    lcm = breaker()
    assert [lcm.not_answered("a", "timeout", 1.0) for _ in range(50)] == [None] * 50


def test_an_answer_breaks_the_row() -> None:
    """Failures count only in a row."""
    lcm = breaker()
    for account in ("a", "b"):
        lcm.not_answered(account, "timeout", 1.0)
    assert lcm.answered("d") is None
    assert lcm.not_answered("c", "timeout", 1.0) is None


def test_only_an_answer_ends_an_outage_of_exchanges() -> None:
    """Sessions opened all along, so another one proves nothing."""
    lcm = breaker(failures=1)
    lcm.not_answered("a", "timeout", 1.0)
    assert lcm.session_opened() is None
    assert lcm.answered("d") is not None


def test_probes_come_ever_more_rarely() -> None:
    """The pause doubles from the first delay to the longest."""
    lcm = breaker(failures=1)
    assert lcm.probe_delay(longest) == 0.0
    lcm.not_answered("a", "timeout", 1.0)
    pauses = []
    for _ in range(7):
        pauses.append(lcm.probe_delay(longest))
        lcm.not_answered("a", "timeout", 1.0)
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


def fail(lcm: Breaker, *accounts: str) -> bool:
    """Have exchanges of these accounts fail; tell whether that started an outage."""
    started = [lcm.not_answered(account, "malformed_reply", 1.0) for account in accounts]
    return any(started)


def test_where_lcm_has_answered_others_must_not_answer_it_is_doubted() -> None:
    """Pitfall: many accounts that LCM always answers badly look like an outage, and hold up everybody else's."""
    lcm = breaker()
    lcm.answered("good")
    assert not fail(lcm, "bad-1", "bad-2")
    assert lcm.doubted == ""
    assert not fail(lcm, "bad-3", "bad-4")
    assert (lcm.doubted, lcm.outage) == ("good", None)


def test_an_answer_settles_a_doubt() -> None:
    """LCM is there; what failed before it is the accounts' own fault, and is not counted again."""
    lcm = breaker()
    lcm.answered("good")
    fail(lcm, "bad-1", "bad-2", "bad-3")
    assert lcm.answered("good") is None
    assert lcm.doubted == ""
    assert not fail(lcm, "bad-4", "bad-5")
    assert lcm.doubted == ""


def test_a_failure_settles_a_doubt() -> None:
    """It is LCM, and there is nothing more to be asked; with the account among the first to fail there is no doubt."""
    lcm = breaker()
    lcm.answered("good")
    fail(lcm, "bad-1", "bad-2", "bad-3")
    assert fail(lcm, "good")
    assert lcm.doubted == ""
    lcm.answered("good")
    assert not fail(lcm, "good", "bad-1")
    assert fail(lcm, "bad-2")


def test_one_account_that_lcm_answers_no_more_is_no_proof() -> None:
    """The one that LCM answered before is asked for as well; the same one answered twice is one."""
    lcm = breaker()
    for account in ("before", "good", "turns bad", "turns bad"):
        lcm.answered(account)
    fail(lcm, "bad-1", "bad-2", "bad-3")
    assert lcm.doubted == "turns bad"
    assert not fail(lcm, "turns bad")
    assert lcm.doubted == "good"
    assert fail(lcm, "good")


def test_probes_draw_from_ever_more_jobs() -> None:
    """None is passed over at first; then it is one of 250 or more that wait, since those before may all fail."""
    lcm = breaker()
    assert lcm.reach(10_000, longest) == 0
    fail(lcm, "bad-1", "bad-2", "bad-3")
    drawn = []
    for probe in range(6):
        drawn.append(lcm.reach(10_000, longest))
        fail(lcm, f"probe-{probe}")
    assert drawn == [0, 500, 1000, 2000, 2000, 2000]
    assert lcm.reach(7, longest) == 7


def test_a_doubt_that_can_not_be_settled_is_dropped() -> None:
    """What failed is counted anew, or the next failure alone would cause the next doubt."""
    lcm = breaker()
    lcm.answered("good")
    fail(lcm, "bad-1", "bad-2", "bad-3")
    lcm.not_settled()
    assert not fail(lcm, "bad-1", "bad-2")
    assert lcm.doubted == ""


def test_without_a_session_there_is_no_doubt() -> None:
    """LCM is out then, whatever failed before."""
    lcm = breaker()
    lcm.answered("good")
    fail(lcm, "bad-1", "bad-2", "bad-3")
    assert lcm.session_not_opened("refused", now=1.0) is not None
    assert lcm.doubted == ""


def test_who_is_refused_waits_longest_from_the_start() -> None:
    """Trying again soon with a wrong password can lock an account out."""
    lcm = breaker()
    lcm.session_not_opened("401", now=1.0, refused=True)
    assert lcm.probe_delay(longest) == 30.0


def test_its_repr_tells_its_state() -> None:
    """Logs and tests show it."""
    lcm = breaker(failures=2)
    lcm.not_answered("a", "timeout", 1.0)
    assert repr(lcm) == "<Breaker closed, 1 accounts failed in a row>"
    lcm.not_answered("b", "timeout", 1.0)
    assert repr(lcm) == "<Breaker open by exchanges, 0 probes>"
