"""Behaviours of the simulated LCM by name, and how single switches change them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from worker.simulator.behaviour import EVERY, MIXED, Behaviour, Rule, check_names


@dataclass(frozen=True, slots=True)
class Scenario:
    """A behaviour, and in one line what it shows."""

    description: str
    behaviour: Behaviour


def _faults(description: str, **faults: float) -> Scenario:
    names = {name.replace("_", "-"): probability for name, probability in faults.items()}
    return Scenario(description, Behaviour(faults=names))


SCENARIOS: Mapping[str, Scenario] = {
    "documented": Scenario("answers at once, exactly as documented", Behaviour()),
    "slow": Scenario("every reply takes 200 ms to 1 s", Behaviour(delay=0.2, jitter=0.8)),
    "late-replies": _faults("one reply in fifty comes after the client gave up", late=0.02),
    "double-replies": _faults("one reply in twenty is sent twice", twice=0.05),
    "unprompted-replies": _faults("one reply in twenty comes again, with nothing asked", unprompted=0.05),
    "unasked": Scenario("all kinds of other messages come before every reply", Behaviour(unasked=(EVERY,))),
    "variants": Scenario(
        "every spelling and form of a reply, at random", Behaviour(variants=frozenset({MIXED}))
    ),
    "refusals": _faults("every account is refused, in either form", refuse=0.5, refuse_plain=0.5),
    "errors": _faults("every reply is an error about LCM itself", error=1),
    "not-logged-in": _faults("every reply says that the agent is not logged in", not_logged_in=1),
    "unknown-accounts": Scenario("no account is known but those of `18|`", Behaviour(known="18|*")),
    "empty": _faults("every account has an empty outcome list", empty=1),
    "silence": _faults("no request is answered", silence=1),
    "garbage": _faults(
        "two replies in three can't be read",
        cut_off=0.1,
        not_json=0.1,
        nan=0.1,
        deep=0.1,
        boolean=0.05,
        strings=0.05,
        no_response=0.05,
        no_id=0.05,
        binary=0.05,
    ),
    "huge-replies": _faults("one reply in ten is 10 MB long", huge=0.1),
    "sliced": _faults("every reply comes in fragments of one byte", sliced=1),
    "flaky": _faults(
        "one exchange in ten meets a fault that passes, and so do some connections",
        late=0.01,
        silence=0.01,
        twice=0.01,
        unprompted=0.01,
        cut_off=0.01,
        error=0.01,
        wrong_subtopic=0.01,
        close=0.01,
        reset=0.01,
        freeze=0.01,
        accept_and_close=0.05,
        unavailable=0.05,
    ),
    "dropping": _faults("one exchange in five ends in a close or a reset", close=0.1, reset=0.1),
    "frozen": _faults("one exchange in twenty freezes its connection", freeze=0.05),
    "accept-and-close": _faults("every connection is closed as soon as it is open", accept_and_close=1),
    "unauthorized": _faults("every handshake is answered with 401", unauthorized=1),
    "unavailable": _faults("every handshake is answered with 503", unavailable=1),
    "heartbeats": Scenario(
        "an OpenID frame, then a heartbeat every five seconds", Behaviour(open_id=True, heartbeat=5)
    ),
    "unique-names": Scenario("one live connection for each name", Behaviour(unique_names=True)),
    "sample": Scenario(
        "slow, refused, unreadable, once silent or once dropped by the account's first field, else good",
        Behaviour(
            rules=(
                Rule("4|*", "slow"),
                Rule("9|*", "refuse"),
                Rule("7|*", "cut-off"),
                Rule("18|*", "silence", 1),
                Rule("5|*", "reset", 1),
            ),
            delay=0.02,
            jitter=0.08,
        ),
    ),
}


def behaviour_from(scenario: str | None, **switches: Any) -> Behaviour:
    """Return the behaviour of a scenario (None: the documented one) with switches: fields of Behaviour.

    A switch that is None counts as not given; any other replaces the scenario's value as a whole. They may
    come as a command line has them: `faults` as texts (`late`, `late=0.1`), `rules` likewise
    (`18|*=silence:2`), `variants` and `unasked` as any iterable of names. Raises ValueError, with the names
    or the form that would do.
    """
    check_names("scenario", [scenario or "documented"], SCENARIOS)
    given = {name: value for name, value in switches.items() if value is not None}
    check_names("switch", given, [each.name for each in fields(Behaviour)])
    readers: dict[str, Callable[[Any], Any]] = {
        "faults": _read_faults,
        "rules": _read_rules,
        "variants": frozenset,
        "unasked": tuple,
    }
    for name in readers.keys() & given.keys():
        given[name] = readers[name](given[name])
    return replace(SCENARIOS[scenario or "documented"].behaviour, **given)


def _read_faults(given: Mapping[str, float] | Iterable[str]) -> dict[str, float]:
    if isinstance(given, Mapping):
        return dict(given)
    faults = {}
    for text in given:
        name, equals, probability = text.partition("=")
        try:
            faults[name] = float(probability) if equals else 1.0
        except ValueError:
            raise ValueError(f"fault {text!r}: expected NAME or NAME=PROBABILITY, like 'late=0.1'") from None
    return faults


def _read_rules(given: Iterable[Rule | str]) -> tuple[Rule, ...]:
    return tuple(Rule.parse(rule) if isinstance(rule, str) else rule for rule in given)
