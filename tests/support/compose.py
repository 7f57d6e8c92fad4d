"""What docker-compose.yml says, with its variables at their defaults."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

_FILE = Path(__file__).parents[2] / "docker-compose.yml"


def document() -> dict[str, Any]:
    """Return all of it."""
    found: dict[str, Any] = yaml.safe_load(re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", _FILE.read_text()))
    return found


def services() -> dict[str, Any]:
    """Return the services."""
    return dict(document()["services"])
