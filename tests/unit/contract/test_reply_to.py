"""Which queues a result may go to by reply_to."""

from __future__ import annotations

import pytest

from worker.contract.reply_to import DIRECT, refusal_of

ALLOWED = ("dialer.replies.", f"{DIRECT}.")


@pytest.mark.parametrize("reply_to", ["dialer.replies.emea", "dialer.replies.", f"{DIRECT}.g1h2AA=="])
def test_a_name_with_an_allowed_beginning_is_used(reply_to: str) -> None:
    """A queue whose name begins with one of the prefixes, and a caller's direct reply-to, may get a result."""
    assert refusal_of(reply_to, ALLOWED, "lcm.outcome") is None


@pytest.mark.parametrize(
    "reply_to", ["dialer.replies", "Dialer.replies.emea", "amq.gen-1", "x.dialer.replies.y"]
)
def test_any_other_name_is_refused(reply_to: str) -> None:
    """A name without an allowed beginning gets nothing, and the reason names the setting."""
    assert "reply_to_prefixes" in (refusal_of(reply_to, ALLOWED, "lcm.outcome") or "")


def test_nothing_is_allowed_by_default() -> None:
    """Without prefixes no queue gets a reply."""
    assert refusal_of("dialer.replies.emea", (), "lcm.outcome")


@pytest.mark.parametrize("name", ["jobs", "dead", "results", "retry.5s", "retry.1h"])
def test_a_queue_of_our_own_never_gets_a_result(name: str) -> None:
    """However generous the prefixes are, a result can't become a job or a dead letter."""
    assert "this worker's own" in (refusal_of(f"lcm.outcome.{name}", ("", "lcm."), "lcm.outcome") or "")


def test_direct_reply_to_without_a_caller_is_refused() -> None:
    """Pitfall: to publish under the bare name closes the channel of whoever is no such caller."""
    assert "names no caller" in (refusal_of(DIRECT, ("",), "lcm.outcome") or "")
