"""How the simulated LCM behaves: the switches, and the choice that they lead to for each request."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase, translate
from random import Random

from worker.simulator.documents import UNASKED, VARIANTS, Variants

FAULTS: Mapping[str, str] = {
    "refuse": "an error about the account in place of the outcomes: errorType, errorMessage, msg",
    "refuse-plain": "an error about the account: success false, with msg",
    "error": "topic Error on the LCM channel",
    "not-logged-in": "an error in the reply: the agent is not logged in",
    "empty": "an empty outcome list",
    "silence": "no reply",
    "slow": "the good reply after `slow_by`",
    "late": "the good reply after `late_by`",
    "twice": "the good reply, two times",
    "unprompted": "the good reply, and once more after `unprompted_after`",
    "cut-off": "the first half of the good reply",
    "not-json": "a page of HTML",
    "nan": "NaN for an id",
    "deep": "arrays nested 10,000 deep",
    "huge": "a well-formed reply of `huge_size`",
    "boolean": "true in place of the outcome list",
    "strings": "strings in place of the outcomes",
    "no-response": "a reply without `response`",
    "no-id": "an outcome whose id is null",
    "sliced": "the good reply in fragments of one byte",
    "binary": "the good reply in a binary frame",
    "wrong-subtopic": "a reply to another request, and then nothing",
    "flood": "messages of other channels without end in place of a reply",
    "close": "the connection is closed, with `close_code`, in place of a reply",
    "reset": "the TCP connection is reset in place of a reply",
    "freeze": "from here on nothing is read or sent on this connection, not even a pong",
}
CONNECTION_FAULTS: Mapping[str, str] = {
    "accept-and-close": "the connection is accepted, then closed with `close_code`",
    "unauthorized": "the handshake is answered with 401",
    "unavailable": "the handshake is answered with 503",
}
WHEN_FULL: Mapping[str, str] = {
    "http": "the handshake is answered with 503",
    "close": "the connection is accepted, then closed with code 4429",
    "error": "the connection is accepted, and each message answered with topic Error: TOO_MANY_SESSIONS",
}
MIXED = "mixed"
EVERY = "all"


def check_names(kind: str, names: Iterable[str], valid: Iterable[str]) -> None:
    """Raise ValueError, with the names that would do, for the first name that is not valid."""
    valid = list(valid)
    for name in names:
        if name not in valid:
            raise ValueError(f"unknown {kind} {name!r}; use one of: {', '.join(valid)}")


@dataclass(frozen=True, slots=True)
class Rule:
    """What accounts of a pattern get: `fault`, in the first `limit` exchanges of each (0 = in all).

    The pattern is that of `fnmatch`, case-sensitive: `*`, `?` and `[…]` are special (`[[]` is a bracket),
    while `|` is an ordinary character.
    """

    pattern: str
    fault: str
    limit: int = 0

    def __post_init__(self) -> None:
        check_names("fault", [self.fault], FAULTS)
        if self.limit < 0:
            raise ValueError(
                f"rule for {self.pattern!r}: the limit must be 0 (none) or more, not {self.limit}"
            )

    @classmethod
    def parse(cls, text: str) -> Rule:
        """Read `PATTERN=FAULT` or `PATTERN=FAULT:LIMIT`; the last `=` counts."""
        pattern, equals, action = text.rpartition("=")
        fault, colon, limit = action.partition(":")
        if not equals or not pattern or (colon and not re.fullmatch("[0-9]{1,9}", limit)):
            raise ValueError(
                f"rule {text!r}: expected PATTERN=FAULT or PATTERN=FAULT:LIMIT, like '18|*=silence:2'"
            )
        return cls(pattern, fault, int(limit or 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """All switches; the defaults are the documented behaviour. Times are seconds, sizes bytes.

    For a request, the first that applies decides: `login`, a rule, an unknown account, then `faults`.
    Raises ValueError for a value that makes no sense; the text says which, and what would do.
    """

    faults: Mapping[str, float] = field(default_factory=dict)  # a probability for each name
    rules: tuple[Rule, ...] = ()  # the first that matches and is not used up
    known: str = "*"  # the fnmatch pattern of the accounts that exist
    unknown: str = "refuse"  # the fault that any other account gets
    variants: frozenset[str] = frozenset()  # names of VARIANTS; `mixed`: drawn anew for every reply
    unasked: tuple[str, ...] = ()  # kinds of UNASKED, sent ahead of every reply; `all`: each kind
    delay: float = 0.0
    jitter: float = 0.0  # a reply takes from `delay` to `delay + jitter`
    slow_by: float = 2.0
    late_by: float = 15.0  # longer than the client's patience
    unprompted_after: float = 0.05
    huge_size: int = 10_000_000
    close_code: int = 1000
    open_id: bool = False  # an OpenID frame comes first
    heartbeat: float = 0.0  # the interval; 0 = none
    max_sessions: int = 0  # as many at one time as there is room for; 0 = any number
    when_full: str = "http"  # what one session more gets, a name of WHEN_FULL
    unique_names: bool = False  # a second live connection of one `name` parameter is refused, with 409
    credentials: str = ""  # `user:password` that Basic authentication must give; user `*` is anyone
    login: str = ""  # the subtopic that a connection must send once; until then: not-logged-in
    seed: int | None = None  # of all that is drawn

    def __post_init__(self) -> None:
        check_names("fault", self.faults, (*FAULTS, *CONNECTION_FAULTS))
        check_names("fault", [self.unknown], FAULTS)
        check_names("variant", self.variants, (*VARIANTS, MIXED))
        check_names("unasked message", self.unasked, (*UNASKED, EVERY))
        check_names("way to be full", [self.when_full], WHEN_FULL)
        for kind in FAULTS, CONNECTION_FAULTS:
            self._check_probabilities({name: p for name, p in self.faults.items() if name in kind})
        for name in "delay", "jitter", "slow_by", "late_by", "unprompted_after", "huge_size", "heartbeat":
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be a finite number, 0 or more, not {value}")
        if self.max_sessions < 0:
            raise ValueError(f"max_sessions must be 0 (any number) or more, not {self.max_sessions}")
        if self.credentials and ":" not in self.credentials:
            raise ValueError("credentials must be user:password")

    @staticmethod
    def _check_probabilities(faults: Mapping[str, float]) -> None:
        for name, probability in faults.items():
            if not 0 <= probability <= 1:
                raise ValueError(f"the probability of {name} must be from 0 to 1, not {probability}")
        if sum(faults.values()) > 1 + 1e-9:
            raise ValueError(f"the probabilities of {', '.join(faults)} add up to more than 1")


class Chooser:
    """Draws, for one behaviour, what happens; keeps the tallies of limited rules.

    Each matter is drawn from a generator of its own, all seeded from `behaviour.seed`: the n-th exchange gets
    the same fault whether or not its delay was drawn as well.
    """

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.unasked = tuple(UNASKED) if EVERY in behaviour.unasked else behaviour.unasked
        self._exchange_faults = {n: p for n, p in behaviour.faults.items() if n in FAULTS}
        self._connection_faults = {n: p for n, p in behaviour.faults.items() if n in CONNECTION_FAULTS}
        self._matchers = [(rule, re.compile(translate(rule.pattern))) for rule in behaviour.rules]
        self._used: Counter[tuple[Rule, str]] = Counter()
        # All generators share one seed; where none is given, the system draws it.
        seed = Random().getrandbits(64) if behaviour.seed is None else behaviour.seed  # noqa: S311 -- no secret
        self._for_exchanges, self._for_connections, self._for_delays, self._for_variants = (
            Random(f"{seed} {matter}")  # noqa: S311 -- no secret: it has to be reproducible
            for matter in ("exchanges", "connections", "delays", "variants")
        )

    def fault_of_connection(self) -> str | None:
        """Draw the fault of a new connection."""
        return _drawn(self._connection_faults, self._for_connections)

    def fault_of_exchange(self, account: str) -> str | None:
        """Say what this request of a logged-in connection gets; None is the good reply."""
        for rule, matcher in self._matchers:
            if matcher.match(account) and self._has_left(rule, account):
                return rule.fault
        if self.behaviour.known != "*" and not fnmatchcase(account, self.behaviour.known):
            return self.behaviour.unknown
        return _drawn(self._exchange_faults, self._for_exchanges)

    def _has_left(self, rule: Rule, account: str) -> bool:
        if not rule.limit:
            return True
        self._used[rule, account] += 1
        return self._used[rule, account] <= rule.limit

    def delay(self) -> float:
        """Draw how long the reply takes, in seconds."""
        jitter = self.behaviour.jitter
        return self.behaviour.delay + (self._for_delays.uniform(0, jitter) if jitter else 0)

    def variants(self) -> Variants:
        """Draw the variants of one reply."""
        chosen = self.behaviour.variants
        if MIXED not in chosen:
            return chosen
        drawn = (name for name in VARIANTS if self._for_variants.random() < 1 / 2)
        return (chosen - {MIXED}).union(drawn)


def _drawn(faults: Mapping[str, float], random: Random) -> str | None:
    if not faults:
        return None
    point = random.random()
    for name, probability in faults.items():
        point -= probability
        if point < 0:
            return name
    return None
