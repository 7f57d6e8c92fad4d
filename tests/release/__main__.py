"""The checks of a release: `archives`, `trial COMMAND` and `tag TAG`; see the Makefile and the release workflow."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

from tests.release.archives import mistakes, tracked_files
from tests.release.changelog import objections
from tests.release.trial import TrialFailed, attempt

TOP = Path(__file__).parents[2]


def main(arguments: Sequence[str]) -> int:
    """Run one check; return 0 where nothing is wrong, else 1 after a line for each mistake."""
    given = _options(arguments)
    version: str = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]["version"]
    if given.check == "trial":
        return _trial(given.command, version)
    if given.check == "tag":
        wrong = list(objections(given.tag, version, (TOP / "CHANGELOG.md").read_text()))
    else:
        [wheel], [sdist] = ((TOP / "dist").glob(kind) for kind in ("*.whl", "*.tar.gz"))
        wrong = list(mistakes(wheel, sdist, tracked_files(TOP), version))
    sys.stderr.writelines(f"{each}\n" for each in wrong)
    return 1 if wrong else 0


def _trial(command: Path, version: str) -> int:
    try:
        print(asyncio.run(attempt(command, version)))  # noqa: T201 - a command prints
    except TrialFailed as failed:
        sys.stderr.write(f"{failed}\n")
        return 1
    return 0


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.release", description=__doc__)
    checks = parser.add_subparsers(dest="check", required=True)
    checks.add_parser("archives", help="what dist/ holds")
    checks.add_parser("trial", help="an installed lcm-worker").add_argument("command", type=Path)
    checks.add_parser("tag", help="whether this tag is the project's version").add_argument("tag")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
