"""docs/architecture.md lists every module of the package, and no other."""

from __future__ import annotations

import re
from pathlib import Path

TOP = Path(__file__).parents[2]
PAGE = (TOP / "docs" / "architecture.md").read_text()


def listed(page: str) -> set[str]:
    """Return the path of each module that a table under the heading of a folder names."""
    found = set()
    for section in page.split("\n### `")[1:]:
        folder, _, text = section.partition("`\n")
        found |= {f"{folder}{name}" for name in re.findall(r"^\| `([\w./]+\.py)` \|", text, re.MULTILINE)}
    return found


def present() -> set[str]:
    """Return the path of each module with code in it."""
    return {
        str(file.relative_to(TOP)) for file in (TOP / "worker").rglob("*.py") if file.read_bytes().strip()
    }


def test_every_module_is_listed() -> None:
    """Each module stands in the table of its folder, and each that stands there exists."""
    assert listed(PAGE) == present()


def test_a_module_that_is_not_listed_would_be_noticed() -> None:
    """Without one row, or with one more, the list differs from the tree."""
    row = next(line for line in PAGE.splitlines() if line.startswith("| `pool.py`"))
    assert present() - listed(PAGE.replace(row, "")) == {"worker/lcm/pool.py"}
    assert listed(PAGE.replace(row, f"{row}\n| `gone.py` | |")) - present() == {"worker/lcm/gone.py"}
