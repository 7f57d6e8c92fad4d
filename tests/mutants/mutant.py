"""A mutant: a patch that takes one protection out of the worker, and the tests that must notice."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent
_LINE = re.compile(r"^(Protection|Test): (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Mutant:
    """What a patch file says: the protection, and the node ids of the tests that fail without it."""

    patch: Path
    protection: str
    tests: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.patch.stem


def read(patch: Path) -> Mutant:
    """Read a patch file. Raises ValueError where it does not name one protection and a test."""
    said = _LINE.findall(patch.read_text().partition("\n--- ")[0])
    protections = [text for kind, text in said if kind == "Protection"]
    tests = tuple(text for kind, text in said if kind == "Test")
    if len(protections) != 1 or not tests:
        raise ValueError(
            f"{patch.name}: one line `Protection: …` and a line `Test: …` have to stand before the patch"
        )
    return Mutant(patch, protections[0], tests)


def mutants(folder: Path = FOLDER) -> list[Mutant]:
    """Return all mutants, by name. Raises ValueError as `read`."""
    return [read(patch) for patch in sorted(folder.glob("*.patch"))]


def apply(mutant: Mutant, tree: Path, options: Iterable[str] = ()) -> str:
    """Apply a patch to a tree, with the options of `git apply`; return why that can't be, "" where it can."""
    done = subprocess.run(  # noqa: S603 - the project's own patch
        ["git", "apply", *options, mutant.patch.resolve()],  # noqa: S607 - the git that cloned the tree
        cwd=tree,
        # In a folder of another repository git would pass over the patch without a word.
        env=os.environ | {"GIT_CEILING_DIRECTORIES": str(tree.resolve().parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stderr.strip() if done.returncode else ""
