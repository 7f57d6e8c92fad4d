"""The switches of the simulated LCM: names, rules, chances, and what scenario and switches add up to."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from worker.simulator import documents
from worker.simulator.behaviour import CONNECTION_FAULTS, FAULTS, Behaviour, Chooser, Rule
from worker.simulator.faults import MANNERS
from worker.simulator.scenarios import SCENARIOS, behaviour_from


def test_every_fault_named_is_played_in_one_way() -> None:
    """A fault is either one message or a manner, and each has a name and a description."""
    assert not documents.BAD.keys() & MANNERS.keys()
    assert documents.BAD.keys() | MANNERS.keys() == FAULTS.keys()
    assert all(FAULTS.values())
    assert all(CONNECTION_FAULTS.values())


def test_the_good_reply_is_the_documented_one_and_names_the_account() -> None:
    """The reply has the sample's addresses, its 49 outcomes in its order, and 1000 with the account."""
    reply = json.loads(documents.good('9|"ü'))
    assert (reply["channel"], reply["topic"], reply["subtopic"]) == (
        "LCM",
        "WebService",
        "SetCallOutComeOfflineResponse",
    )
    outcomes = reply["message"]["response"]
    assert len(outcomes) == 50
    assert outcomes[0] == {"OutComeID": "0", "Description": "Success"}
    assert [item["OutComeID"] for item in outcomes[24:27]] == ["30", "27", "31"]
    assert outcomes[-1] == {"OutComeID": "1000", "Description": 'Account 9|"ü'}


def test_a_rule_is_read_up_to_its_last_equals_sign() -> None:
    """Patterns may hold `=`, `|` and `:`; a limit is optional."""
    assert Rule.parse("9|*=refuse") == Rule("9|*", "refuse")
    assert Rule.parse("a=b:1|?=silence:2") == Rule("a=b:1|?", "silence", 2)


@pytest.mark.parametrize("text", ["", "refuse", "=refuse", "9|*=refuse:", "9|*=refuse:-1", "9|*=refuse:x"])
def test_a_rule_in_another_form_is_refused_with_the_form(text: str) -> None:
    """The error shows what a rule looks like."""
    with pytest.raises(ValueError, match="expected PATTERN=FAULT"):
        Rule.parse(text)


def test_the_first_rule_that_matches_and_is_not_used_up_decides() -> None:
    """Limits count for each account by itself; a used-up rule leaves the account to the next one."""
    chooser = Chooser(behaviour_from(None, rules=["18|*=silence:2", "18|2*=refuse", "[5]|?=empty"]))
    assert [chooser.fault_of_exchange("18|1") for _ in range(4)] == ["silence", "silence", None, None]
    assert [chooser.fault_of_exchange("18|2") for _ in range(3)] == ["silence", "silence", "refuse"]
    assert chooser.fault_of_exchange("5|1") == "empty"
    assert chooser.fault_of_exchange("118|1") is None
    assert chooser.fault_of_exchange("18") is None


def test_a_rule_goes_before_an_unknown_account_and_that_before_chance() -> None:
    """The order of deciding is rule, unknown, faults."""
    chooser = Chooser(
        behaviour_from(None, rules=["7=late"], known="[18]*", unknown="silence", faults={"twice": 1})
    )
    assert [chooser.fault_of_exchange(account) for account in ("7", "9", "1")] == ["late", "silence", "twice"]


def test_faults_come_about_as_often_as_they_should() -> None:
    """Over many draws, the share of each fault is near its probability, and the rest is good."""
    chooser = Chooser(Behaviour(faults={"late": 0.2, "close": 0.1, "unavailable": 0.5}, seed=1))
    seen = Counter(chooser.fault_of_exchange("1") for _ in range(10_000))
    assert seen.keys() == {"late", "close", None}
    assert seen["late"] == pytest.approx(2000, rel=0.1)
    assert seen["close"] == pytest.approx(1000, rel=0.1)
    connections = Counter(chooser.fault_of_connection() for _ in range(10_000))
    assert connections["unavailable"] == pytest.approx(5000, rel=0.1)


def _draws(behaviour: Behaviour) -> list[tuple[Any, ...]]:
    chooser = Chooser(behaviour)
    return [
        (chooser.fault_of_exchange("1"), chooser.fault_of_connection(), chooser.delay(), chooser.variants())
        for _ in range(50)
    ]


def test_a_seed_determines_everything_that_is_drawn() -> None:
    """Two runs of one seed draw the same, another seed draws otherwise, and so do two runs without one."""
    switches: dict[str, Any] = {"jitter": 1, "variants": ["mixed"]}
    one = _draws(behaviour_from("flaky", seed=1, **switches))
    assert one == _draws(behaviour_from("flaky", seed=1, **switches))
    assert one != _draws(behaviour_from("flaky", seed=2, **switches))
    assert _draws(behaviour_from("flaky", **switches)) != _draws(behaviour_from("flaky", **switches))


def test_drawing_delays_leaves_the_faults_as_they_were() -> None:
    """The n-th fault of a seed does not depend on whether there is jitter."""
    still, jittery = (_draws(behaviour_from("flaky", seed=3, jitter=jitter)) for jitter in (0, 1))
    assert [draw[0] for draw in still] == [draw[0] for draw in jittery]


def test_delays_lie_between_delay_and_delay_plus_jitter() -> None:
    """Jitter only adds."""
    chooser = Chooser(Behaviour(delay=2, jitter=1))
    delays = [chooser.delay() for _ in range(100)]
    assert all(2 <= delay <= 3 for delay in delays)
    assert len(set(delays)) > 50
    assert Chooser(Behaviour(delay=2)).delay() == 2


def test_every_scenario_has_a_description_and_can_be_had_by_name() -> None:
    """A scenario by name is its behaviour, and no two scenarios are the same."""
    assert all(scenario.description for scenario in SCENARIOS.values())
    assert all(behaviour_from(name) == scenario.behaviour for name, scenario in SCENARIOS.items())
    assert behaviour_from(None) == behaviour_from("documented") == Behaviour()
    behaviours = [scenario.behaviour for scenario in SCENARIOS.values()]
    assert all(behaviours.count(behaviour) == 1 for behaviour in behaviours)


def test_switches_replace_what_the_scenario_says() -> None:
    """A switch replaces one field as a whole, None leaves it, and command-line forms are read."""
    behaviour = behaviour_from(
        "slow",
        delay=None,
        jitter=0.1,
        faults=["late=0.25", "close=0.5"],
        rules=["9|*=refuse"],
        unasked=["all"],
    )
    assert behaviour == Behaviour(
        delay=0.2,
        jitter=0.1,
        faults={"late": 0.25, "close": 0.5},
        rules=(Rule("9|*", "refuse"),),
        unasked=("all",),
    )
    assert behaviour_from("late-replies", faults=["late"]).faults == {"late": 1.0}


@pytest.mark.parametrize(
    ("scenario", "switches", "text"),
    [
        ("nosuch", {}, "unknown scenario 'nosuch'; use one of: documented, slow, "),
        (None, {"nosuch": 1}, "unknown switch 'nosuch'; use one of: faults, rules, "),
        (None, {"faults": {"nosuch": 1}}, "unknown fault 'nosuch'; use one of: refuse, .*, unavailable"),
        (None, {"faults": ["late=often"]}, "fault 'late=often': expected NAME or NAME=PROBABILITY"),
        (None, {"faults": {"late": 1.5}}, "the probability of late must be from 0 to 1, not 1.5"),
        (None, {"faults": {"late": float("nan")}}, "the probability of late must be"),
        (None, {"faults": {"late": 0.6, "close": 0.6}}, "late, close add up to more than 1"),
        (None, {"rules": ["9=nosuch"]}, "unknown fault 'nosuch'"),
        (None, {"rules": ["9=unavailable"]}, "unknown fault 'unavailable'"),
        (None, {"unknown": "nosuch"}, "unknown fault 'nosuch'"),
        (None, {"variants": ["nosuch"]}, "unknown variant 'nosuch'; use one of: topic-case, .*, mixed"),
        (None, {"unasked": ["nosuch"]}, "unknown unasked message 'nosuch'; use one of: outcome-set, .*, all"),
        (None, {"delay": -1}, "delay must be a finite number, 0 or more, not -1"),
        (None, {"jitter": float("inf")}, "jitter must be a finite number"),
        (None, {"credentials": "token"}, "credentials must be user:password"),
    ],
)
def test_a_wrong_name_or_value_is_an_error_that_says_what_would_do(
    scenario: str | None, switches: dict[str, Any], text: str
) -> None:
    """Unknown scenarios, switches, faults and variants, and senseless values, are refused at once."""
    with pytest.raises(ValueError, match=text):
        behaviour_from(scenario, **switches)
