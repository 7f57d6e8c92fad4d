"""`make mutants`: takes each protection out, and requires that the tests named for it fail."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.benchmarks.progress import Progress
from tests.mutants.laboratory import Laboratory
from tests.mutants.mutant import Mutant, mutants, threat_model

TOP = Path(__file__).parents[2]
TREE = TOP / ".sandbox" / "mutants" / "tree"


def chosen() -> list[Mutant]:
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    parser.add_argument(
        "-k", metavar="WORD", default="", help="those with this word in their name or protection"
    )
    parser.add_argument(
        "--table", action="store_true", help="print the threat model for SECURITY.md, run nothing"
    )
    options = parser.parse_args()
    if options.table:
        sys.stdout.write(threat_model(mutants()))
        parser.exit()
    word = options.k
    found = [mutant for mutant in mutants() if word in mutant.name or word in mutant.protection]
    return found or parser.error(f"no mutant has {word!r} in its name or protection")


def main() -> int:
    picked, progress = chosen(), Progress()
    laboratory = Laboratory(TOP, TREE)
    progress.doing("their tests, without any mutant")
    fault = laboratory.fault_of_tests(test for mutant in picked for test in mutant.tests)
    progress.done()
    if fault:
        sys.stderr.write(f"{fault}\n")
        return 1
    missed = []
    for number, mutant in enumerate(picked, 1):
        progress.doing(f"{number} of {len(picked)}: {mutant.name}")
        fault = laboratory.fault_of(mutant)
        missed += [mutant.name] if fault else []
        progress.done()
        tests = "".join(f"        {test}\n" for test in mutant.tests)
        sys.stdout.write(f"{fault or 'found'}  {mutant.name}: {mutant.protection}\n{tests}")
        sys.stdout.flush()
    sys.stdout.write(f"{len(picked) - len(missed)} of {len(picked)} found\n")
    sys.stdout.writelines(f"not found: {name}\n" for name in missed)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
