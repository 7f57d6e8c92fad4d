"""Every mutant applies, is small, and names tests that exist; found is told from missed."""

from __future__ import annotations

import ast
from itertools import product
from pathlib import Path

import pytest

from tests.mutants.laboratory import Laboratory, Ran, fault_in
from tests.mutants.mutant import Mutant, apply, mutants, read, threat_model

TOP = Path(__file__).parents[2]
MUTANTS = mutants()
_MOST_LINES = 12

PATCH = """\
Asset: the answer
Threat: it is wrong
Protection: the answer is right
Test: {test}

--- a/worker/__init__.py
+++ b/worker/__init__.py
@@ -1 +1 @@
-{before}
+{after}
"""
TESTS = """\
import worker, pytest
@pytest.fixture
def broken(): assert worker.ANSWER == 42
@pytest.mark.parametrize("least", [0, 42])
def test_right(least): assert worker.ANSWER >= least
def test_there(): assert worker.ANSWER
def test_prepared(broken): pass
"""


def functions(file: str) -> set[str]:
    """Return the tests that a file of this tree defines."""
    path = TOP / file
    found = ast.walk(ast.parse(path.read_bytes())) if path.is_file() else ()
    return {node.name for node in found if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def unknown(mutant: Mutant) -> list[str]:
    """Return the tests that a mutant names and that don't exist."""
    pairs = {test: test.partition("::") for test in mutant.tests}
    return [test for test, (file, _, name) in pairs.items() if name not in functions(file)]


def placed(folder: Path, test: str, before: str, after: str) -> Mutant:
    """Return a mutant of a made-up tree."""
    patch = folder / "made-up.patch"
    patch.write_text(PATCH.format(test=test, before=before, after=after))
    return read(patch)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_every_mutant_applies_to_this_tree(mutant: Mutant) -> None:
    """Its patch fits what runs, changes a few lines of that alone, and names tests that exist."""
    lines = mutant.patch.read_text().splitlines()
    files = [line for line in lines if line.startswith(("--- ", "+++ "))]
    assert apply(mutant, TOP, ["--check"]) == ""
    assert {tuple(file[4:].split("/")[:2]) for file in files} <= set(product("ab", ("worker", "config")))
    assert 1 <= len([line for line in lines if line[:1] in {"+", "-"}]) - len(files) <= _MOST_LINES
    assert unknown(mutant) == []


def test_each_protection_has_one_mutant() -> None:
    """No two of them say the same, and no patch is there without being read."""
    assert len({mutant.protection for mutant in MUTANTS}) == len(MUTANTS) >= 50


def test_the_threat_model_is_written_down() -> None:
    """SECURITY.md has the threat model as the mutants tell it; `python -m tests.mutants --table` prints it."""
    assert threat_model(MUTANTS) in (TOP / "SECURITY.md").read_text()


def test_a_patch_without_its_front_text_is_refused(tmp_path: Path) -> None:
    """Which test must fail, and for what, is never left open."""
    patch = tmp_path / "bare.patch"
    for front in ("Asset: a\nThreat: t\nProtection: p\n", "Asset: a\nProtection: p\nTest: t\n"):
        patch.write_text(f"{front}\n--- a/worker/x.py\nTest: in the patch itself\nThreat: likewise\n")
        with pytest.raises(ValueError, match=r"bare\.patch"):
            read(patch)


def test_a_test_that_does_not_exist_is_noticed(tmp_path: Path) -> None:
    """Neither a missing file nor a missing function passes."""
    for test in ("tests/unit/test_no_file.py::test_x", "tests/unit/test_mutants.py::test_x"):
        assert unknown(placed(tmp_path, test, "x = 1", "x = 2")) == [test]


def test_a_mutant_lives_in_the_copy_alone(tmp_path: Path) -> None:
    """The patch changes the copy, its tests run there on the copy's code, and each is told by how its cases ended."""
    top = tmp_path / "top"
    (top / "worker").mkdir(parents=True)
    (top / "tests").mkdir()
    (top / "worker" / "__init__.py").write_text("ANSWER = 42\n")
    (top / "tests" / "test_answer.py").write_text(TESTS)
    (top / "pytest.ini").write_text("[pytest]\n")
    laboratory = Laboratory(top, tmp_path / "tree")
    names = [f"tests/test_answer.py::test_{name}" for name in ("right", "there", "prepared")]
    assert "does not apply: " in laboratory.fault_of(placed(tmp_path, names[0], "ANSWER = 43", "ANSWER = 7"))
    assert apply(placed(tmp_path, names[0], "ANSWER = 42", "ANSWER = 7"), laboratory.tree) == ""
    ran = laboratory.run(names)
    assert ran.status == 1
    assert [ran.outcomes[name] for name in names] == [{"passed", "failure"}, {"passed"}, {"error"}]
    assert (top / "worker" / "__init__.py").read_text() == "ANSWER = 42\n"


@pytest.mark.parametrize(
    ("status", "outcomes", "told"),
    [
        (1, {"one": {"passed", "failure"}, "two": {"failure"}}, ""),
        (0, {"one": {"passed"}, "two": {"passed"}}, "missed"),
        (1, {"one": {"failure"}, "two": {"passed"}}, "missed by: two"),
        (1, {"one": {"failure"}, "two": {"skipped"}}, "missed by: two"),
        (1, {"one": {"failure"}}, "missed by: two"),
        (1, {"one": {"failure", "error"}, "two": {"error"}}, "can not begin: two"),
        (2, {}, "its tests did not run: status 2, the last line"),
        (-1, {}, "its tests did not run: status -1, the last line"),
    ],
)
def test_only_a_test_that_ran_and_failed_has_found_a_mutant(
    status: int, outcomes: dict[str, set[str]], told: str
) -> None:
    """One that passed, was skipped, could not begin, was never collected or has no end has not."""
    ran = Ran(
        status, {test: frozenset(ends) for test, ends in outcomes.items()}, "some lines\nthe last line\n"
    )
    assert fault_in(ran, ["one", "two"]) == told
