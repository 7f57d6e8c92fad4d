"""What is imported is declared, what is declared is imported; each has a lower bound, a reason and a locked version."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib.metadata import files, packages_distributions
from pathlib import Path

import pytest

from tests.unit.test_imports import SOURCES, imports

TOP = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((TOP / "pyproject.toml").read_text())
REQUIRED: list[str] = PYPROJECT["project"]["dependencies"]
EXTRAS: dict[str, list[str]] = PYPROJECT["project"]["optional-dependencies"]
DECLARED = [*REQUIRED, *EXTRAS["otel"]]
GROUPS: dict[str, list[str]] = PYPROJECT["dependency-groups"]
README = (TOP / "README.md").read_text()
LOCKS = {
    "requirements.lock": [*REQUIRED, *GROUPS["build"]],
    "requirements-dev.lock": [*DECLARED, *GROUPS["build"], *GROUPS["dev"], *GROUPS["bench"]],
}


def normalized(name: str) -> str:
    """Return a distribution's name in the one form that package tools compare: `PyYAML` is `pyyaml`."""
    return re.sub(r"[-_.]+", "-", name).lower()


def names(requirements: Iterable[str]) -> set[str]:
    return {normalized(re.split(r"[^\w.-]", requirement, maxsplit=1)[0]) for requirement in requirements}


def used(trees: Iterable[ast.Module]) -> set[str]:
    """Return the distributions that modules import from; of a module that none installs, its own name."""
    modules = {name for tree in trees for name in imports(tree)}
    installed = packages_distributions()
    return {
        normalized(distribution)
        for module in modules
        if (top := module.partition(".")[0]) not in sys.stdlib_module_names | {"worker"}
        for distribution in installed.get(top, [top])
        if len(installed.get(top, [])) < 2 or brings(distribution, module)
    }


def brings(distribution: str, module: str) -> bool:
    """Whether a distribution, one of several that share a namespace, has this very module."""
    path = module.replace(".", "/")
    return any(str(file) in {f"{path}.py", f"{path}/__init__.py"} for file in files(distribution) or [])


def without_lower_bound(requirements: Iterable[str]) -> Iterator[str]:
    yield from (each for each in requirements if not re.fullmatch(r"[\w.-]+>=\d+(\.\d+)*", each))


def explained(readme: str) -> set[str]:
    """Return what the README's table of dependencies has in its first column."""
    table = readme.partition("\n| dependency |")[2].partition("\n\n")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("|")]
    return {name for cell in rows for name in re.findall(r"`([^`]+)`", cell)}


def version(text: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", text)))


def unmet(requirements: Iterable[str], lock: str) -> set[str]:
    """Return the requirements that a lock doesn't pin, with hashes, to one version that is at least the bound."""
    pinned = dict(re.findall(r"^(\S+)==(\S+) \\\n +--hash=sha256:", lock, re.MULTILINE))
    pairs = [re.sub(r"\[.*\]", "", requirement).partition(">=")[::2] for requirement in requirements]
    return {
        name for name, bound in pairs if version(pinned.get(normalized(name), "")) < version(bound or "0")
    }


def places_of_download(lock: str) -> list[str]:
    """Return the lines of a lock that say where to download from: whoever installs it decides that."""
    return [line for line in lock.splitlines() if re.search(r"://|^\s*--(?!hash=)|^\s*-[a-z]\b| @ ", line)]


def test_what_is_imported_is_declared_and_what_is_declared_is_imported() -> None:
    """The package needs exactly what pyproject.toml says, and relies on no dependency's dependency."""
    assert used(SOURCES.values()) == names(DECLARED)


@pytest.mark.parametrize(
    ("source", "distribution"),
    [
        ("import hypothesis", "hypothesis"),
        ("def late():\n    from yaml import nodes", "pyyaml"),
        ("import _pytest.config as config", "pytest"),
        ("from no_such_module import anything", "no-such-module"),
        ("from opentelemetry.sdk.trace import TracerProvider", "opentelemetry-sdk"),
    ],
)
def test_an_undeclared_import_is_noticed(source: str, distribution: str) -> None:
    """An import is traced to its distribution, wherever it stands and whether or not that is installed."""
    assert used([ast.parse(source)]) == {distribution}


def test_own_modules_and_the_standard_library_need_no_declaration() -> None:
    """Of these nothing is to be installed."""
    assert used([ast.parse("import os.path\nfrom worker.settings import load")]) == set()


def test_each_dependency_has_a_lower_bound() -> None:
    """Each names the oldest version that it is known to work with, and nothing else."""
    assert list(without_lower_bound(DECLARED)) == []


@pytest.mark.parametrize(
    "requirement", ["rich", "rich<16", "rich==15.0.0", "rich>=", "rich @ file:///rich.whl"]
)
def test_a_missing_lower_bound_is_noticed(requirement: str) -> None:
    """Neither a bare name nor another kind of bound passes."""
    assert list(without_lower_bound([requirement])) == [requirement]
    assert names([requirement]) == {"rich"}


def test_the_readme_says_why_each_dependency_is_there() -> None:
    """The table names exactly the declared dependencies."""
    assert explained(README) == names(DECLARED)


def test_a_dependency_without_a_reason_is_noticed() -> None:
    """The table is read by its first column alone: a name elsewhere explains nothing."""
    table = "`yarl`\n\n| dependency | why |\n|---|---|\n| `rich`, `typer` | beside `yarl` |\n\n`yarl`\n"
    assert explained(table) == {"rich", "typer"}


@pytest.mark.parametrize("name", LOCKS)
def test_the_locks_are_in_line_with_what_is_declared(name: str) -> None:
    """Each requirement is pinned within its bound, and no place to download from is written down; else `make lock`."""
    lock = (TOP / name).read_text()
    assert unmet(LOCKS[name], lock) == set()
    assert places_of_download(lock) == []


def test_a_lock_out_of_line_is_noticed() -> None:
    """What is missing, has no hash or is older than its bound is found."""
    pins = {"rich": "15.0.0", "yarl": "1.9.3", "ruff": "0.17.1"}
    lock = "".join(f"{name}=={pin} \\\n    --hash=sha256:00\n    # via x\n" for name, pin in pins.items())
    lock += "msgspec==0.22.0\n"
    requirements = ["rich[all]>=15", "yarl[all]>=1.25", "ruff", "typer>=0.29", "mypy", "msgspec>=0.22"]
    assert unmet(requirements, lock) == {"yarl", "typer", "mypy", "msgspec"}


@pytest.mark.parametrize(
    "line",
    [
        "--index-url https://packages.example/simple",
        "-i https://packages.example/simple",
        "--find-links wheels",
        "-r other.lock",
        "rich @ file:///rich.whl",
    ],
)
def test_a_place_of_download_is_noticed(line: str) -> None:
    """Whatever names an index, a host or another file is found."""
    assert places_of_download(f"{line}\nrich==15.0.0 \\\n    --hash=sha256:00\n    # via typer\n") == [line]
