"""The Dockerfile as the tests read it: its instructions, and the stages that they make."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from string import Template

TOP = Path(__file__).parents[2]


@dataclass(frozen=True)
class Step:
    """One RUN or COPY, with the folder and the environment that it has."""

    instruction: str
    rest: str
    folder: str
    environment: dict[str, str]


@dataclass
class Stage:
    """One stage: its steps in their order, and how what comes of them is run."""

    name: str
    environment: dict[str, str]
    steps: list[Step] = field(default_factory=list)
    folder: str = "/"
    user: str = "0:0"
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)

    def take(self, instruction: str, rest: str) -> None:
        """Follow one instruction; ValueError where the tests don't know it."""
        match instruction:
            case "RUN" | "COPY":
                self.steps.append(Step(instruction, rest, self.folder, dict(self.environment)))
            case "ENV":
                pairs = [word.partition("=") for word in shlex.split(rest)]
                before = dict(self.environment)
                self.environment |= {name: Template(text).substitute(before) for name, _, text in pairs}
            case "WORKDIR":
                self.folder = rest
            case "USER":
                self.user = rest
            case "ENTRYPOINT":
                self.entrypoint = json.loads(rest)
            case "CMD":
                self.command = json.loads(rest)
            case "STOPSIGNAL":
                pass
            case _:
                raise ValueError(f"the tests don't know what {instruction} does")


def instructions() -> list[tuple[str, str]]:
    """Return the instructions, as (name, arguments), continued lines joined and comments left out."""
    text = re.sub(r"^#.*\n", "", (TOP / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [(name.upper(), rest.strip()) for name, _, rest in (line.partition(" ") for line in lines if line)]


def stages(environment: dict[str, str]) -> list[Stage]:
    """Return the stages, each on a base image with this environment; the last one is the image."""
    found: list[Stage] = []
    for name, rest in instructions():
        if name == "FROM":
            found.append(Stage(rest.partition(" AS ")[2] or str(len(found)), dict(environment)))
        else:
            found[-1].take(name, rest)
    return found


def let_through() -> set[str]:
    """Return the files and folders of the checkout that .dockerignore lets through to the build."""
    lines = (TOP / ".dockerignore").read_text().splitlines()
    return {line[1:] for line in lines if line.startswith("!")}
