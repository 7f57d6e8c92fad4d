"""The licences of all packages, and docs/licences.md, which lists them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from importlib.metadata import Distribution

from tests.supply.packages import PROJECT, needed

_LONGEST = 60  # characters; what is longer is a licence's text, not its name
# By the names of SPDX, where a package's own way of writing leaves no doubt.
_SPDX = {
    "apache 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "isc license": "ISC",
    "isc license (iscl)": "ISC",
    "mit license": "MIT",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
}
_INTRODUCTION = """\
# Licences

What each package declares of its own licence; `make sbom` writes this file. The worker itself is under the MIT licence.

## What runs

| package | licence |
|---|---|
"""
_DEVELOPMENT = """
## What only development needs

Tests, checks, the build and the benchmark: none of these is part of the worker, nor comes with it.

| licence | packages |
|---|---|
"""


def licence_of(package: Distribution) -> str:
    """Return the licence that a package declares; by the name that SPDX gives it, where that is clear."""
    told = package.metadata
    text = told["License-Expression"] or told["License"] or ""
    if not text or text == "UNKNOWN" or "\n" in text or len(text) > _LONGEST:
        classifiers = [each.split(" :: ") for each in told.get_all("Classifier") or ()]
        text = ", ".join(each[-1] for each in classifiers if each[0] == "License")
    return _SPDX.get(text.casefold(), text)


def page(present: Mapping[str, Distribution]) -> str:
    """Return docs/licences.md for an environment with the development's packages."""
    running = needed(present).keys() - {PROJECT}
    others: dict[str, list[str]] = defaultdict(list)
    for name in sorted(present.keys() - running - {PROJECT}):
        others[licence_of(present[name])].append(name)
    rows = [f"| `{name}` | {licence_of(present[name])} |\n" for name in sorted(running)]
    other_rows = [
        f"| {licence} | {', '.join(f'`{name}`' for name in names)} |\n"
        for licence, names in sorted(others.items())
    ]
    return "".join([_INTRODUCTION, *rows, _DEVELOPMENT, *other_rows])
