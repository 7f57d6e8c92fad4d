"""What policies of the broker change about our queues, and what that may lose; pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from worker.broker.topology import Queue, Topology

_FOR_QUEUES = frozenset({"all", "queues", "quorum_queues"})
_DEAD_LETTERING = frozenset({"dead-letter-exchange", "dead-letter-routing-key", "dead-letter-strategy"})
_LOWEST_COUNTS = frozenset({"message-ttl", "expires", "max-length", "max-length-bytes"})

# With more, or with a repeated group, a search can take time that doubles with each letter.
_LONGEST_PATTERN, _MOST_REPEATS = 1000, 3
_REPEATS, _REPEATED_GROUP = re.compile(r"[*+?{]"), re.compile(r"\)[*+?{]")


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy, or an operator policy; `kind` says which."""

    kind: str
    name: str
    pattern: str
    apply_to: str
    priority: float
    definition: Mapping[str, Any]

    def matches(self, queue: str, said: str = "") -> bool:
        """Whether it is for this queue; `said` names the policy that the broker has.

        That decides where Python does not understand the pattern, or might look for it for years.
        """
        if self.apply_to not in _FOR_QUEUES:
            return False
        if not _is_quick(self.pattern):
            return self.name == said
        try:
            return re.search(self.pattern, queue) is not None
        except re.error:
            return self.name == said


def _is_quick(pattern: str) -> bool:
    """Tell whether a search for it ends soon, whatever it is searched in."""
    if len(pattern) > _LONGEST_PATTERN:
        return False
    return not _REPEATED_GROUP.search(pattern) and len(_REPEATS.findall(pattern)) <= _MOST_REPEATS


@dataclass(frozen=True, slots=True)
class Change:
    """What one key of a policy changes about one queue; `means` says what it may lose."""

    queue: str
    policy: Policy
    key: str
    value: Any
    means: str


@dataclass(frozen=True, slots=True)
class _Role:
    """What a queue holds; what becomes of it where it drops out early, and where new ones are refused."""

    holds: str
    early: str
    refused: str


_ROLES = {
    "jobs": _Role(
        "jobs",
        "go to the dead-letter queue, without a result",
        "are lost where their producer waits for no confirm",
    ),
    "retry": _Role("jobs", "come back sooner than broker.retry_delays says", "pause the workers"),
    "results": _Role("results", "are lost", "go to the undelivered queue"),
    "dead": _Role("dead letters", "are lost", "make their jobs deferred"),
    "undelivered": _Role("parked results", "are lost", "make their jobs deferred"),
}
_LENGTH = "{holds} beyond it are refused, and {refused}"
_LENGTH_DROPS = "the oldest {holds} beyond it {early}"
_ELSEWHERE = "{holds} that are rejected, or drop out by a limit, go by it, out of the worker's sight"
_CARELESS = "; dead-lettering is at most once then, which may lose more"
_MEANINGS = {
    "overflow": "over a length limit the oldest {holds} {early}, where new ones were to be refused",
    "message-ttl": "{holds} that wait for {value} ms {early}",
    "expires": "the queue is deleted with its {holds} where nobody consumes from it for {value} ms",
    "max-length": _LENGTH,
    "max-length-bytes": _LENGTH,
    "delivery-limit": "{holds} that were returned more than {value} times {early}",
    **dict.fromkeys(_DEAD_LETTERING, _ELSEWHERE),
}


def in_force(queue: str, policies: Iterable[Policy], said: str = "") -> Policy | None:
    """Return the one policy of a kind that the broker applies to a queue: the matching one of the highest priority.

    `said` is the name of the one that the broker's statistics have, some seconds old: it decides between equals.
    """
    matching = [each for each in policies if each.matches(queue, said)]
    return max(matching, key=lambda each: (each.priority, each.name == said), default=None)


def changes_of(queue: Queue, role: str, policies: Iterable[Policy]) -> Iterator[Change]:
    """Yield what the policies in force change about a queue, the operator's given first."""
    found = list(policies)
    own = {name.removeprefix("x-"): value for name, value in queue.arguments.items()}
    overflow = next((each.definition["overflow"] for each in found if "overflow" in each.definition), None)
    drops = (overflow or own.get("overflow")) != "reject-publish"
    for policy in found:
        for key, value in policy.definition.items():
            if _has_effect(key, value, own):
                means = _LENGTH_DROPS if drops and key.startswith("max-length") else _MEANINGS[key]
                if key == "overflow" and own.get("dead-letter-strategy") == "at-least-once":
                    means += _CARELESS
                yield Change(
                    queue.name, policy, key, value, means.format(value=value, **asdict(_ROLES[role]))
                )


def roles_of(topology: Topology) -> dict[str, str]:
    """Return the role of each queue, by its name."""
    named = {getattr(topology, role): role for role in _ROLES}
    return {queue.name: named.get(queue.name, "retry") for queue in topology.queues}


def _has_effect(key: str, value: Any, own: Mapping[str, Any]) -> bool:
    if key in _DEAD_LETTERING:
        return key not in own  # the queue's own argument wins
    if key == "delivery-limit":
        return key in own and 0 <= value < own[key]
    if key in _LOWEST_COUNTS:
        return key not in own or value < own[key]
    return key == "overflow" and value != own.get(key)
