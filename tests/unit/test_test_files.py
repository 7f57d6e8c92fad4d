"""Tests stand where the code does: their folders are those of worker/, and a unit test is named after its module."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest

import worker

TESTS = Path(__file__).parents[1]
CODE = Path(worker.__file__).parent
MODULES = {PurePosixPath(file.relative_to(CODE)).with_suffix("") for file in CODE.rglob("*.py")}
FOLDERS = {module.parent for module in MODULES}
NAMES = {module.name for module in MODULES if module.parent.parts}

# They are about what a whole folder comes to: the command line, and the settings with all their sections.
OF_A_WHOLE_FOLDER = {"unit/cli/test_commands.py", "unit/settings/test_settings.py"}


def misplaced(test: str) -> str:
    """Say what is wrong with the place of a file, given by its path below tests/; nothing where it is right."""
    path = PurePosixPath(test)
    kind, folder, module = path.parts[0], PurePosixPath(*path.parts[1:-1]), path.stem.removeprefix("test_")
    if not path.name.startswith("test_"):
        return "it is no test: what tests share is in tests/support"
    if folder not in FOLDERS:
        return f"worker/{folder} is no folder"
    if kind == "integration" or test in OF_A_WHOLE_FOLDER or folder / module in MODULES:
        return ""
    if folder.parts:
        return f"worker/{folder}/{module}.py does not exist"
    # Those that stand here and are of no module are about the project's own files.
    return f"it is named after a module of a folder: {module}" if module in NAMES else ""


def test_every_test_is_in_its_place() -> None:
    """No file of the unit and integration tests is anywhere else than its name and its folder say."""
    files = [file for kind in ("unit", "integration") for file in (TESTS / kind).rglob("*.py")]
    places = {str(PurePosixPath(file.relative_to(TESTS))) for file in files}
    assert {place: wrong for place in places if (wrong := misplaced(place))} == {}
    assert places >= OF_A_WHOLE_FOLDER


@pytest.mark.parametrize(
    ("test", "words"),
    [
        ("unit/lcm/test_pond.py", "worker/lcm/pond.py does not exist"),
        ("unit/lcm/test_link.py", "worker/lcm/link.py does not exist"),
        ("unit/pond/test_pool.py", "worker/pond is no folder"),
        ("unit/test_breaker.py", "after a module of a folder"),
        ("unit/lcm/helpers.py", "tests/support"),
        ("integration/pond/test_any.py", "worker/pond is no folder"),
        ("integration/broker/links/test_any.py", "worker/broker/links is no folder"),
    ],
)
def test_a_misplaced_test_is_noticed(test: str, words: str) -> None:
    """A made-up file that stands in the wrong place is found out, so the rule can fail."""
    assert words in misplaced(test)


@pytest.mark.parametrize(
    "test",
    [
        "unit/test_guard.py",
        "unit/test_docs.py",
        "unit/broker/admin/test_apply.py",
        "integration/lcm/test_any.py",
    ],
)
def test_a_test_in_its_place_is_let_be(test: str) -> None:
    """Modules beside the folders and in them have their tests likewise, and so have the project's own files."""
    assert misplaced(test) == ""
