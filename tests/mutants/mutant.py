"""A mutant: a patch that takes one protection out of the worker, and the tests that must notice."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent
_LINE = re.compile(r"^(Asset|Threat|Protection|Test): (.+)$", re.MULTILINE)
_ONCE = ("Asset", "Threat", "Protection")


@dataclass(frozen=True)
class Mutant:
    """What a patch file says: what is threatened by what, the protection, and the tests that fail without it."""

    patch: Path
    asset: str
    threat: str
    protection: str
    tests: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.patch.stem


def read(patch: Path) -> Mutant:
    """Read a patch file. Raises ValueError where it does not name one asset, threat and protection, and a test."""
    said: dict[str, list[str]] = {name: [] for name in (*_ONCE, "Test")}
    for name, text in _LINE.findall(patch.read_text().partition("\n--- ")[0]):
        said[name].append(text)
    if not said["Test"] or any(len(said[name]) != 1 for name in _ONCE):
        raise ValueError(
            f"{patch.name}: one line each of `Asset: …`, `Threat: …` and `Protection: …`, and a line `Test: …`, have to"
            " stand before the patch"
        )
    asset, threat, protection = (said[name][0] for name in _ONCE)
    return Mutant(patch, asset, threat, protection, tuple(said["Test"]))


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


def threat_model(found: Iterable[Mutant]) -> str:
    """Return the threat model in Markdown: a table for each asset."""
    rows: dict[str, list[str]] = {}
    for mutant in found:
        tests = ", ".join(f"[{test.rpartition('::')[2]}]({test.partition('::')[0]})" for test in mutant.tests)
        row = f"| {mutant.threat} | {mutant.protection} | {tests} |\n"
        rows.setdefault(mutant.asset, []).append(row)
    head = "| threat | what stops it | the test that shows it |\n|---|---|---|\n"
    return "\n".join(
        f"### {asset[0].upper()}{asset[1:]}\n\n{head}{''.join(rows[asset])}" for asset in sorted(rows)
    )
