"""The services of docker-compose.yml."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

FILE = Path(__file__).parents[2] / "docker-compose.yml"


def services() -> dict[str, Any]:
    """Return the services, with the variables at their defaults."""
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", FILE.read_text())
    found: dict[str, Any] = yaml.safe_load(text)["services"]
    return found
