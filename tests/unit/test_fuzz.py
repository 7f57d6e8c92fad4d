"""The targets of `make fuzz` hold for their corpus and for inputs of hypothesis, and its loop finds what is wrong."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz import __main__ as command
from tests.fuzz import loop
from tests.fuzz.edits import inputs
from tests.fuzz.loop import Loop, TooSlow
from tests.fuzz.target import CORPUS, Target
from tests.fuzz.targets import TARGETS

INPUTS = {name: inputs(target.seeds(), target.words) for name, target in TARGETS.items()}
each_target = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)


@each_target
@settings(max_examples=200)
@given(data=st.data())
def test_the_property_holds(target: Target, data: st.DataObject) -> None:
    """Whatever comes from outside, near what is usual or far from it, the property of its target holds."""
    target.check(data.draw(INPUTS[target.name]))


@each_target
def test_the_property_holds_for_the_corpus(target: Target) -> None:
    """Each committed input, those among them that once failed, holds."""
    assert target.seeds()
    for data in target.seeds():
        target.check(data)


def test_each_corpus_has_its_target() -> None:
    """No folder of inputs is left behind by a target that was renamed."""
    assert {folder.name for folder in CORPUS.iterdir()} == set(TARGETS)


def planted(data: bytes) -> None:
    """Fail by a prefix that nobody hits upon by chance, only step by step."""
    if data[:1] != b"F":
        return
    if data[1:2] != b"U":
        return
    if data[2:3] != b"Z":
        return
    raise ValueError("found")


def drawn(seed: int) -> Random:
    """Return what draws the same changes each time."""
    return Random(seed)  # noqa: S311 - no secret


PLANTED = Target("planted", planted, (b"F", b"U", b"Z"))


@pytest.mark.parametrize("seed", range(2))
def test_a_fault_is_found_step_by_step(seed: int) -> None:
    """What each step reaches is gone on from; without that guidance the same changes do not get there."""
    most = 20_000
    found = Loop(PLANTED, [b""], drawn(seed), __file__).run(lambda found: found.executions < most)
    assert isinstance(found.failure, ValueError)
    assert found.failing.startswith(b"FUZ")
    assert found.kept
    blind = Loop(PLANTED, [b""], drawn(seed), "/nowhere").run(
        lambda blind: blind.executions < found.executions
    )
    assert (blind.failure, blind.kept, blind.steps) == (None, [], 0)


def test_the_loop_leaves_the_tracing_of_others() -> None:
    """Coverage, or a debugger, goes on where the loop has ended."""
    before = sys.gettrace()
    Loop(PLANTED, [b"F", b"FUZZ"], drawn(1), __file__).run(lambda _: False)
    assert sys.gettrace() is before


def test_an_input_that_takes_for_ever_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hang is ended, and found."""
    monkeypatch.setattr(loop, "LONGEST", 0.05)

    def hang(_data: bytes) -> None:
        while True:
            time.sleep(0.001)

    found = Loop(Target("hanging", hang), [b"x"], drawn(1)).run(lambda _: True)
    assert isinstance(found.failure, TooSlow)
    assert found.failing == b"x"


def test_what_fails_can_be_replayed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The input is kept in a file, and the command that is told fails by it in the same way."""
    faulty = Target("log", planted, (b"FUZZ",))
    monkeypatch.setitem(TARGETS, "log", faulty)
    monkeypatch.setattr(command, "FAILURES", tmp_path)
    assert command.main(["--target", "log", "--seconds", "30", "--seed", "1"]) == 1
    told = capsys.readouterr().out.splitlines()
    assert "ValueError: found" in told
    arguments = shlex.split(shlex.split(told[-1])[-1].removeprefix("ARGS="))
    with pytest.raises(ValueError, match="found"):
        command.main(arguments)


def test_a_run_tells_what_it_reached(capsys: pytest.CaptureFixture[str]) -> None:
    """A target whose property holds has one line, with what repeats the run, and the status 0."""
    assert command.main(["--target", "http-answer", "--seconds", "0", "--seed", "7"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("http-answer: 3 executions, ")
    assert out.count("\n") == 1
    assert "seed 7" in out
