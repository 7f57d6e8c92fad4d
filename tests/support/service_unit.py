"""The systemd unit as systemd reads it, for as much of that as the tests need."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

UNIT = Path(__file__).parents[2] / "config/lcm-outcome-worker@.service"


def values_of(name: str) -> Iterator[str]:
    """Yield the values of a setting of the section [Service], in their order."""
    section = ""
    for line in UNIT.read_text().splitlines():
        if line.startswith("["):
            section = line
        elif section == "[Service]" and line.startswith(f"{name}="):
            yield line.partition("=")[2]


def expanded(value: str, specifiers: Mapping[str, str]) -> str:
    """Return a value with its specifiers, such as %i, replaced."""
    for letter, text in specifiers.items():
        value = value.replace(f"%{letter}", text)
    return value


def credentials() -> dict[str, str]:
    """Return the file of each credential."""
    return dict(value.split(":", 1) for value in values_of("LoadCredential"))


def environment(specifiers: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that the unit sets."""
    pairs = (shlex.split(expanded(value, specifiers)) for value in values_of("Environment"))
    return dict(pair.split("=", 1) for words in pairs for pair in words)


def command(specifiers: Mapping[str, str]) -> list[str]:
    """Return the command of ExecStart."""
    [value] = values_of("ExecStart")
    return shlex.split(expanded(value, specifiers))
