"""What policies change about our queues."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.settings import broker_settings
from worker.broker.admin.policies import Policy, changes_of, in_force, roles_of
from worker.broker.topology import topology_of

TOPOLOGY = topology_of(broker_settings("amqp://127.0.0.1/", retry_delays=["5s"]))
QUEUES = {queue.name.removeprefix("lcm.outcome."): queue for queue in TOPOLOGY.queues}


def policy(kind: str = "policy", pattern: str = ".*", priority: float = 0, **definition: Any) -> Policy:
    keys = {name.replace("_", "-"): value for name, value in definition.items()}
    return Policy(kind, "p", pattern, "all", priority, keys)


def told(queue: str, *policies: Policy) -> dict[str, str]:
    """Return what each key of some policies means for a queue."""
    role = roles_of(TOPOLOGY)[QUEUES[queue].name]
    return {change.key: change.means for change in changes_of(QUEUES[queue], role, policies)}


@pytest.mark.parametrize(
    ("queue", "definition", "means"),
    [
        ("results", {"overflow": "drop-head"}, "the oldest results are lost"),
        ("jobs", {"overflow": "drop-head"}, "dead-lettering is at most once"),
        ("results", {"message_ttl": 1000}, "results that wait for 1000 ms are lost"),
        ("jobs", {"message_ttl": 1000}, "go to the dead-letter queue, without a result"),
        ("retry.5s", {"message_ttl": 4999}, "come back sooner"),
        ("dead", {"expires": 60_000}, "deleted with its dead letters"),
        ("retry.5s", {"expires": 60_000}, "deleted with its jobs"),
        ("jobs", {"max_length": 10}, "beyond it are refused, and are lost where their producer"),
        ("results", {"max_length_bytes": 10}, "go to the undelivered queue"),
        ("undelivered", {"max_length": 99_999}, "make their jobs deferred"),
        ("jobs", {"delivery_limit": 19}, "returned more than 19 times go to the dead-letter queue"),
        ("dead", {"delivery_limit": 20}, "returned more than 20 times are lost"),
        ("results", {"dead_letter_exchange": "x"}, "out of the worker's sight"),
    ],
)
def test_what_a_key_may_lose(queue: str, definition: dict[str, Any], means: str) -> None:
    """Each key that changes what a queue keeps is told with what it may lose."""
    [said] = told(queue, policy(**definition)).values()
    assert means in said


@pytest.mark.parametrize(
    ("queue", "definition"),
    [
        ("results", {"overflow": "reject-publish"}),
        ("retry.5s", {"message_ttl": 5000}),
        ("undelivered", {"max_length": 100_000}),
        ("jobs", {"delivery_limit": 20}),
        ("jobs", {"delivery_limit": -1}),
        ("retry.5s", {"delivery_limit": 1}),
        ("jobs", {"dead_letter_exchange": "x", "dead_letter_strategy": "at-most-once"}),
        ("jobs", {"ha_mode": "all", "queue_mode": "lazy"}),
    ],
)
def test_what_changes_nothing_is_not_told(queue: str, definition: dict[str, Any]) -> None:
    """A limit no lower than ours, an argument that wins over a policy, and keys for other queues are no trouble."""
    assert told(queue, policy(**definition)) == {}


def test_a_length_limit_depends_on_the_overflow() -> None:
    """With drop-head, by whichever policy, a length limit drops what is there rather than refusing what comes."""
    operators = policy("operator policy", max_length=10)
    assert "refused" in told("dead", operators)["max-length"]
    assert "oldest dead letters" in told("dead", operators, policy(overflow="drop-head"))["max-length"]


def test_the_matching_policy_of_the_highest_priority_is_in_force() -> None:
    """One policy of a kind applies to a queue; those for exchanges or classic queues are none, nor are odd patterns."""
    low, high = policy(), policy(pattern="^lcm", priority=1)
    other = policy(pattern="^other", priority=2)
    exchanges = Policy("policy", "e", ".*", "exchanges", 9, {})
    odd = policy(pattern="(?<n>", priority=9)
    assert in_force("lcm.outcome.jobs", [low, high, other, exchanges, odd]) is high
    assert in_force("mine", [high, exchanges]) is None


def test_what_the_broker_says_decides_where_we_cannot_tell() -> None:
    """Between policies of one priority, and for patterns that Python does not read, the broker's statistics count."""
    first, second = Policy("policy", "a", ".*", "all", 0, {}), Policy("policy", "b", ".*", "all", 0, {})
    assert in_force("q", [first, second], "b") is second
    odd = Policy("policy", "odd", "(?<n>q)", "all", 1, {})
    assert in_force("q", [first, odd], "odd") is odd


@pytest.mark.parametrize(
    "pattern", ["^(((.|.)+)+)+$", "(q*)*q", ".*.*.*.*.*.*q", "(?:q|q){50}", "q?" * 200, "q|" * 600]
)
def test_no_pattern_is_looked_for_without_end(pattern: str) -> None:
    """Whoever may set policies may write one that takes years: what the broker says counts.

    These match at once; where nothing matches, their like does not end.
    """
    slow = Policy("policy", "slow", pattern, "all", 1, {})
    assert in_force("q" * 200, [slow]) is None
    assert in_force("q" * 200, [slow], "slow") is slow
