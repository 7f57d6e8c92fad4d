"""Where mutants live: a copy of the tree, made anew for each, in which the tests run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

from tests.mutants.mutant import Mutant, apply

_LONGEST = 300  # seconds for one run of the tests of a mutant
_LEFT_OUT = shutil.ignore_patterns(".*", "*.egg-info", "build", "dist")
_FAILED = 1  # pytest's exit status where tests ran and some failed


@dataclass(frozen=True)
class Ran:
    """What a run of pytest came to: its exit status, and for each test, by node id, how its cases ended."""

    status: int
    outcomes: Mapping[str, frozenset[str]]
    output: str


class Laboratory:
    """Copies `top` to `tree`, and runs tests there, with the interpreter of this process."""

    def __init__(self, top: Path, tree: Path) -> None:
        self._top = top
        self.tree = tree

    def renew(self) -> None:
        """Have a copy without any mutant."""
        shutil.rmtree(self.tree, ignore_errors=True)
        shutil.copytree(self._top, self.tree, ignore=_LEFT_OUT)

    def fault_of_tests(self, tests: Iterable[str]) -> str:
        """Return what is wrong with tests, or with the laboratory, before there is any mutant; "" where nothing is."""
        self.renew()
        if not (code := self._code()).is_relative_to(self.tree.resolve()):
            return f"the tests would run the code in {code}"
        ran = self.run(tests)
        return f"without any mutant, tests fail:\n{ran.output}" if ran.status else ""

    def fault_of(self, mutant: Mutant) -> str:
        """Return why a mutant was not found by each of its tests; "" where it was."""
        self.renew()
        if why := apply(mutant, self.tree):
            return f"does not apply: {why}"
        return fault_in(self.run(mutant.tests), mutant.tests)

    def _code(self) -> Path:
        """Return where a command that a test starts finds the package, which is installed from elsewhere."""
        asked = [sys.executable, "-c", "import worker; print(*worker.__path__)"]
        told = subprocess.run(  # noqa: S603 - this very interpreter
            asked, cwd=self.tree.parent, env=self._environment(), capture_output=True, text=True, check=True
        )
        return Path(told.stdout.strip()).resolve()

    def _environment(self) -> dict[str, str]:
        # A run of tests around this one may be measured: mutants are not. The plugins that the tests need are in the
        # tree's conftest.py.
        kept = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
        return kept | {"PYTHONPATH": str(self.tree.resolve()), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}

    def run(self, tests: Iterable[str]) -> Ran:
        """Run tests on what the copy holds now."""
        report = self.tree / "report.xml"
        options = ["-q", "--tb=short", "-p", "no:cacheprovider", f"--junit-xml={report}"]
        try:
            done = subprocess.run(  # noqa: S603 - this very interpreter
                [sys.executable, "-m", "pytest", *options, "--basetemp=pytest", *sorted({*tests})],
                cwd=self.tree,
                env=self._environment(),
                capture_output=True,
                text=True,
                check=False,
                timeout=_LONGEST,
            )
        except subprocess.TimeoutExpired:
            return Ran(-1, {}, f"no end within {_LONGEST} s")
        return Ran(done.returncode, _outcomes(report), done.stdout + done.stderr)


def fault_in(ran: Ran, tests: Iterable[str]) -> str:
    """Return why a run has not found a mutant; "" where each test has failed, rather than not begun, in one case."""
    if ran.status == 0:
        return "missed"
    if ran.status != _FAILED:
        last = ran.output.strip().rpartition("\n")[2]
        return f"its tests did not run: status {ran.status}, {last}"
    ends = {test: ran.outcomes.get(test, frozenset()) for test in tests}
    missed = [test for test in ends if "failure" not in ends[test]]
    return "; ".join(
        f"{'can not begin' if 'error' in ends[test] else 'missed by'}: {test}" for test in missed
    )


def _outcomes(report: Path) -> dict[str, frozenset[str]]:
    """Read pytest's report: `failure`, `error` or `passed` of each case, by the node id of its test."""
    found: dict[str, set[str]] = defaultdict(set)
    if report.exists():
        for case in ET.parse(report).iter("testcase"):  # noqa: S314 - pytest wrote it just now
            file = case.get("classname", "").replace(".", "/")
            test = case.get("name", "").partition("[")[0]
            found[f"{file}.py::{test}"] |= {each.tag for each in case} or {"passed"}
    return {test: frozenset(ends) for test, ends in found.items()}
