"""The versions of CHANGELOG.md, and whether a tag may be released."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date

_HEADING = re.compile(r"^## \[(\d+\.\d+\.\d+)\] - (\d{4}-\d\d-\d\d)$")


@dataclass(frozen=True)
class Release:
    """One version and its date."""

    version: str
    date: date


def releases(text: str) -> list[Release]:
    """Return the releases in the order of the text; ValueError where a heading of a version has another form."""
    found = []
    for line in text.splitlines():
        if not line.startswith("## ") or line == "## [Unreleased]":
            continue
        if (heading := _HEADING.match(line)) is None:
            raise ValueError(f"no heading of a release: {line}")
        found.append(Release(heading[1], date.fromisoformat(heading[2])))
    return found


def unreleased(text: str) -> str:
    """Return what stands under the heading of what is not released yet."""
    return text.partition("\n## [Unreleased]\n")[2].partition("\n## [")[0].strip()


def objections(tag: str, version: str, text: str) -> Iterator[str]:
    """Yield why a tag can't be released; `version` is the project's, `text` the changelog's."""
    if tag != f"v{version}":
        yield f"the tag is {tag}, and the version of pyproject.toml {version}: tag v{version}"
    if [each.version for each in releases(text)[:1]] != [version]:
        yield f"the newest version of CHANGELOG.md is not {version}"
    if unreleased(text):
        yield f"CHANGELOG.md holds changes under [Unreleased]: move them to {version}"
