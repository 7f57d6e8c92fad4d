"""What holds for normalized outcomes, whatever LCM sends."""

import hashlib
import json
import re
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.contract.outcomes import Outcome, OutcomeList, normalize

Items = list[tuple[str, str]]

# few letters, so that equal ids, ties and blanks come up often; and anything else, for the surprises
IDS = st.text(" \t01279aé", min_size=1, max_size=4) | st.text(min_size=1)
TEXTS = st.text(" \u00a0\nabB_-é", max_size=5) | st.text()
ITEMS = st.lists(st.tuples(IDS.filter(str.strip), TEXTS), max_size=12)
FEW = st.lists(
    st.tuples(st.sampled_from(["1", " 1", "01", "a"]), st.sampled_from(["", "x", "X", " x"])), max_size=3
)


def codes(*descriptions: str) -> list[str]:
    numbered = [(str(number), text) for number, text in enumerate(descriptions)]
    return [outcome.code for outcome in normalize(numbered).outcomes]


def ids(*given_ids: str) -> list[str]:
    return [outcome.id for outcome in normalize([(id_, "") for id_ in given_ids]).outcomes]


@given(ITEMS)
def test_normalizing_again_changes_nothing(items: Items) -> None:
    """Normalized outcomes are their own normal form, with nothing left to warn of."""
    once = normalize(items)
    again = normalize([(outcome.id, outcome.description) for outcome in once.outcomes])
    assert again.outcomes == once.outcomes
    assert again.warnings == ()


@given(ITEMS.flatmap(lambda items: st.tuples(st.just(items), st.permutations(items))))
def test_order_and_repetition_do_not_matter(orders: tuple[Items, Items]) -> None:
    """The same items in any order, once or twice, give the same outcomes and the same warnings."""
    items, shuffled = orders
    assert normalize(shuffled) == normalize(items) == normalize(items + shuffled)


@given(ITEMS)
def test_every_distinct_id_is_kept_once(items: Items) -> None:
    """No id is lost, none is made up, none is there twice."""
    kept = [outcome.id for outcome in normalize(items).outcomes]
    assert sorted(kept) == sorted({id_.strip() for id_, _ in items})


@given(ITEMS)
def test_every_description_is_one_that_came_with_its_id(items: Items) -> None:
    """The first of an id's folded descriptions by text is kept, and warned of exactly when it had others."""
    folded: dict[str, set[str]] = {}
    for id_, text in items:
        folded.setdefault(id_.strip(), set()).add(re.sub(r"\s+", " ", text.strip()))
    normalized = normalize(items)
    assert {outcome.id: outcome.description for outcome in normalized.outcomes} == {
        id_: min(texts) for id_, texts in folded.items()
    }
    assert len(normalized.warnings) == sum(len(texts) > 1 for texts in folded.values())


@given(ITEMS)
def test_codes_are_plain_words(items: Items) -> None:
    """A code has lower-case ASCII letters, digits and single inner underscores, and nothing else."""
    for outcome in normalize(items).outcomes:
        assert re.fullmatch(r"([a-z0-9]+(_[a-z0-9]+)*)?", outcome.code)


@given(ITEMS)
def test_outcomes_are_sorted_by_number_then_text(items: Items) -> None:
    """Ids of 1 to 18 ASCII digits come first by number, ties by text; all others follow by text."""

    def rule(id_: str) -> tuple[int, int, str]:
        return (0, int(id_), id_) if re.fullmatch("[0-9]{1,18}", id_) else (1, 0, id_)

    kept = [outcome.id for outcome in normalize(items).outcomes]
    assert kept == sorted(kept, key=rule)


@given(FEW | ITEMS, FEW | ITEMS)
def test_fingerprints_are_equal_exactly_when_outcomes_are(one: Items, other: Items) -> None:
    """Two fingerprints are equal if and only if the outcomes are."""
    left, right = normalize(one), normalize(other)
    assert (left.fingerprint == right.fingerprint) is (left.outcomes == right.outcomes)


@given(ITEMS)
def test_a_fingerprint_can_be_recomputed_from_plain_json(items: Items) -> None:
    """The fingerprint is the SHA-256 of the outcomes as JSON without blanks, so consumers can check it."""
    normalized = normalize(items)
    plain = [{"id": o.id, "code": o.code, "description": o.description} for o in normalized.outcomes]
    text = json.dumps(plain, ensure_ascii=False, separators=(",", ":"))
    assert normalized.encoded.decode() == text
    assert normalized.fingerprint == "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def test_the_sample_of_the_vendor() -> None:
    """The vendor's 49 outcomes come out in order, with their codes and no warning."""
    items = json.loads((files("worker.simulator") / "outcomes.json").read_bytes())
    normalized = normalize(map(tuple, items))
    numbers = [int(outcome.id) for outcome in normalized.outcomes]
    assert len(numbers) == 49
    assert numbers == sorted(numbers)
    assert normalized.outcomes[0] == Outcome("0", "success", "Success")
    assert (
        Outcome("58", "number_blocked_un_allocated", "Number Blocked / Un-Allocated") in normalized.outcomes
    )
    assert normalized.warnings == ()


def test_an_empty_list_is_a_list() -> None:
    """No items give no outcomes, and a fingerprint of their own."""
    normalized = normalize([])
    assert (normalized.outcomes, normalized.warnings, normalized.encoded) == ((), (), b"[]")
    assert normalized.fingerprint == "sha256:" + hashlib.sha256(b"[]").hexdigest()


def test_ids_sort_by_number() -> None:
    """The order is that of the numbers, whatever their length; 19 digits are text."""
    long, longer = "9" * 18, "1" * 19
    assert ids("b", longer, "99", "007", "7", "10", "-1", "A", long, "a b", "²", "٣") == [
        "007", "7", "10", "99", long, "-1", longer, "A", "a b", "b", "²", "٣",
    ]  # fmt: skip


def test_blanks_of_every_kind_are_folded() -> None:
    """Ids lose their outer blanks and keep inner ones; descriptions lose outer and fold inner blanks."""
    assert normalize([("\u00a0 7 8\n", "\tAdd \u2003\r\n Compliance ")]).outcomes == (
        Outcome("7 8", "add_compliance", "Add Compliance"),
    )


@pytest.mark.parametrize(
    ("description", "code"),
    [
        ("Answering Machine", "answering_machine"),
        ("AMD-Silent", "amd_silent"),
        ("  --Busy!! ", "busy"),
        ("_a__b_", "a_b"),
        ("Não é", "n_o"),
        ("\u212aelvin", "kelvin"),
        ("½ ٣ ﬁ", ""),
        ("", ""),
    ],
)
def test_codes_follow_descriptions(description: str, code: str) -> None:
    """A code is the description in lower case, with runs of anything else as one underscore."""
    assert codes(description) == [code]


def test_one_id_with_two_descriptions_is_warned_of() -> None:
    """The warning names the id, what was kept and what was dropped."""
    normalized = normalize([("7", "Machine"), ("8", "Busy"), (" 7", "Answering  Machine"), ("7", "Machine")])
    assert normalized.outcomes == (
        Outcome("7", "answering_machine", "Answering Machine"),
        Outcome("8", "busy", "Busy"),
    )
    assert normalized.warnings == ("id '7' has 2 descriptions: kept 'Answering Machine', dropped 'Machine'",)


def test_a_warning_stays_readable() -> None:
    """Of many descriptions only a few are listed, long and broken ones in one short line."""
    (warning,) = normalize([("7", f"{number:03}\x00" + "x" * 500) for number in range(100)]).warnings
    assert warning.startswith(r"id '7' has 100 descriptions: kept '000\x00xxx")
    assert warning.endswith("… and 94 more")
    assert warning.isprintable()
    assert len(warning) < 600


def test_warnings_come_in_the_order_of_the_outcomes() -> None:
    """Warnings are sorted like the ids they are about."""
    twice = [(id_, text) for id_ in ("b", "10", "9") for text in ("x", "y")]
    assert [text.split()[1] for text in normalize(twice).warnings] == ["'9'", "'10'", "'b'"]


def test_long_items_are_normalized_like_short_ones() -> None:
    """Items too long to be remembered follow the same rules."""
    text = "Long  " * 200
    expected = Outcome("1", "_".join(["long"] * 200), " ".join(["Long"] * 200))
    normalized = normalize([(" 1", text), ("1", text + " ")])
    assert (normalized.outcomes, normalized.warnings) == ((expected,), ())


def test_lone_surrogates_come_out_as_escapes() -> None:
    """Text that UTF-8 can't hold becomes its escape, and distinct ids stay distinct."""
    normalized = normalize([("\ud800", "a\udfff"), ("\ud801", "b")])
    assert ids("\ud800", "\ud801") == [r"\ud800", r"\ud801"]
    assert normalized.outcomes[0].description == r"a\udfff"
    assert rb"a\\udfff" in normalized.encoded


@given(ITEMS)
def test_a_list_knows_what_follows_from_it(items: Items) -> None:
    """A list gives its normalized form as the function does, and each time the same."""
    listed = OutcomeList(items)
    assert listed.normalized == normalize(items)
    assert listed.normalized is listed.normalized


def test_many_different_items_are_normalized_each_by_itself() -> None:
    """However many items have come before, each one is normalized as if it were the first."""
    for number in range(10_000):
        (outcome,) = normalize([(f" {number}", f"Line {number} Busy")]).outcomes
        assert outcome == Outcome(str(number), f"line_{number}_busy", f"Line {number} Busy")
