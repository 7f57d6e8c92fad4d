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


def test_accounts_that_fail_by_themselves_are_no_evidence() -> None:
    """Pitfall: accounts that LCM always answers with garbage, whose retries come in a bunch, look like an outage."""
    lcm = breaker()
    for _ in range(2):
        assert not fail(lcm, "bad-1", "bad-2")
        lcm.answered("good")
        assert not fail(lcm, "bad-3", "bad-4")
        lcm.answered("good")
    assert not fail(lcm, *["bad-1", "bad-2", "bad-3", "bad-4"] * 5)
    assert not fail(lcm, "new-1", "new-2")
    assert fail(lcm, "new-3")


def test_one_broken_row_proves_nothing() -> None:
    """After an outage that an answer ended, the accounts that had failed in it count again."""
    lcm = breaker()
    assert fail(lcm, "a", "b", "c", "d")
    assert lcm.answered("good") is not None
    assert fail(lcm, "a", "b", "c")


def test_an_answer_clears_an_account() -> None:
    """What is answered is evidence again, however often it had failed before."""
    lcm = breaker(failures=1)
    for _ in range(3):
        fail(lcm, "a")
        lcm.answered("good")
    assert not fail(lcm, "a")
    lcm.answered("a")
    assert fail(lcm, "a")


def test_a_probe_by_an_account_that_fails_by_itself_does_not_count() -> None:
    """Such a probe says nothing of LCM, so the next one comes no later for it."""
    lcm = breaker(failures=2)
    for _ in range(2):
        fail(lcm, "bad")
        lcm.answered("good")
    fail(lcm, "a", "b")
    fail(lcm, "bad", "bad")
    assert lcm.probe_delay(longest) == 1.0


def test_accounts_are_not_remembered_for_ever() -> None:
    """Of the accounts that failed by themselves the oldest are forgotten, or they would grow without bounds."""
    lcm = breaker(failures=1)
    for number in range(10_001):
        for _ in range(2):
            fail(lcm, f"bad-{number}")
            lcm.answered("good")
    assert not fail(lcm, "bad-10000")
    assert fail(lcm, "bad-0")


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
