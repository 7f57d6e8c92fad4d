"""What helps contributors names only what exists: the workflow, hooks, Dependabot and the template."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from worker.sandbox import server

TOP = Path(__file__).parents[2]
GITHUB = TOP / ".github"
MAKEFILE = (TOP / "Makefile").read_text()
PYPROJECT = tomllib.loads((TOP / "pyproject.toml").read_text())
WORKFLOW: dict[str, Any] = yaml.safe_load((GITHUB / "workflows" / "ci.yml").read_text())
RELEASE: dict[str, Any] = yaml.safe_load((GITHUB / "workflows" / "release.yml").read_text())
DEPENDABOT: dict[str, Any] = yaml.safe_load((GITHUB / "dependabot.yml").read_text())
HOOKS: dict[str, Any] = yaml.safe_load((TOP / ".pre-commit-config.yaml").read_text())
TEXTS = [GITHUB / "pull_request_template.md", GITHUB / "dependabot.yml", TOP / "CONTRIBUTING.md"]
# What the image of the workflow's machines brings of the packages that hold the tests' programs.
ON_THE_RUNNER = {"default-jdk-headless", "jq", "npm"}
# What Dependabot updates, and the file that it finds it in.
MANAGED = {
    "pip": "pyproject.toml",
    "github-actions": ".github/workflows/ci.yml",
    "docker": "Dockerfile",
    "docker-compose": "docker-compose.yml",
}
# What the jobs of a release may do beyond reading: sign as this workflow, and write where they publish.
GRANTED = {
    "pypi": {"id-token": "write"},
    "image": {"attestations": "write", "contents": "read", "id-token": "write", "packages": "write"},
}


def steps(workflow: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for job in workflow["jobs"].values():
        yield from job.get("steps", ())


def triggers(workflow: Mapping[Any, Any]) -> dict[str, Any]:
    """Return what starts a workflow: the key is `on`, which YAML 1.1 reads as true."""
    found: dict[str, Any] = workflow[True]
    return found


def commands(workflow: Mapping[str, Any]) -> str:
    return "\n".join(step["run"] for step in steps(workflow) if "run" in step)


def unpinned(workflow: Mapping[str, Any]) -> list[str]:
    """Return the actions that are neither of one released version nor of one commit."""
    pinned = re.compile(r"[\w.-]+/[\w./-]+@(v\d+\.\d+\.\d+|[0-9a-f]{40})")
    used = [step["uses"] for step in steps(workflow) if "uses" in step]
    return [action for action in used if not pinned.fullmatch(action)]


def excesses(workflow: Mapping[str, Any], granted: Mapping[str, dict[str, str]]) -> Iterator[str]:
    """Yield where a run could do, or take, more than it needs; `granted` are the permissions of its jobs."""
    if workflow.get("permissions") != {"contents": "read"}:
        yield "the workflow may do more than read"
    if "concurrency" not in workflow:
        yield "runs for one branch pile up"
    for name, job in workflow["jobs"].items():
        if job.get("permissions", {}) != granted.get(name, {}):
            yield f"{name} has other permissions than it needs"
        if "timeout-minutes" not in job and "uses" not in job:
            yield f"{name} may hang for hours"
    for step in steps(workflow):
        checkout = step.get("uses", "").startswith("actions/checkout@")
        if checkout and step.get("with", {}).get("persist-credentials") is not False:
            yield "a checkout leaves its token behind"


def missing_targets(text: str) -> set[str]:
    """Return what a text has `make` do and the Makefile can't."""
    there = re.findall(r"^([a-z]+):", MAKEFILE, re.MULTILINE)
    return set(re.findall(r"\bmake ([a-z]+)", text)) - set(there)


def missing_commands(text: str) -> set[str]:
    """Return the programs of the virtual environment that a text names and the lock doesn't bring."""
    named = set(re.findall(r"\.venv/bin/([\w-]+)", text))
    return {name for name in named if not Path(sys.executable).with_name(name).exists()}


def not_our_own(config: Mapping[str, Any]) -> list[str]:
    """Return the hooks that have a version of their own rather than that of the lock."""
    return [
        hook["id"]
        for repo in config["repos"]
        for hook in repo["hooks"]
        if repo["repo"] != "local"
        or hook["language"] != "system"
        or not hook["entry"].startswith(("make ", ".venv/bin/"))
    ]


def supported() -> list[str]:
    """Return the versions of Python that the package is declared to run on."""
    kinds = (each.rpartition(" :: ") for each in PYPROJECT["project"]["classifiers"])
    return [version for kind, _, version in kinds if kind.endswith(":: Python") and "." in version]


def python_matrix(workflow: Mapping[str, Any]) -> set[str]:
    """Return the versions of Python that the tests run on."""
    matrix = workflow["jobs"]["tests"]["strategy"]["matrix"]
    return {*matrix["python"], *(extra["python"] for extra in matrix["include"])}


def named(workflow: Mapping[str, Any]) -> set[str]:
    """Return the versions of Python that the steps name outright."""
    given = {str(step.get("with", {}).get("python-version", "$")) for step in steps(workflow)}
    return {version for version in given if "$" not in version} | set(
        re.findall(r"--python-version (\S+)", commands(workflow))
    )


def unmanaged(dependabot: Mapping[str, Any]) -> set[str]:
    """Return what Dependabot should update and isn't told to, where it would find it."""
    told = {
        update["package-ecosystem"]
        for update in dependabot["updates"]
        if update["directory"] == "/" and update["schedule"]["interval"]
    }
    return MANAGED.keys() - told


def broken(original: Mapping[str, Any], path: str, value: object) -> dict[str, Any]:
    """Return a copy with one value replaced; `path` leads to it, such as `jobs/lint/steps/0/uses`."""
    changed = deepcopy(dict(original))
    *way, last = (int(part) if part.isdigit() else part for part in path.split("/"))
    place: Any = changed
    for part in way:
        place = place[part]
    place[last] = value
    return changed


def test_every_action_is_of_one_version() -> None:
    """What runs in a workflow doesn't change because somebody else's branch or moving tag did."""
    assert unpinned(WORKFLOW) == []
    assert unpinned(RELEASE) == []
    used = {step["uses"] for workflow in (WORKFLOW, RELEASE) for step in steps(workflow) if "uses" in step}
    assert len(used) == len({action.partition("@")[0] for action in used})


@pytest.mark.parametrize("at", ["", "@main", "@v7", "@v7.0", "@3d3c42e", "@${{ matrix.version }}"])
def test_an_action_that_may_change_is_noticed(at: str) -> None:
    """A branch, a tag that moves and a shortened commit are no versions."""
    assert unpinned(broken(WORKFLOW, "jobs/lint/steps/0/uses", f"actions/checkout{at}"))


def test_a_run_can_do_no_more_than_it_needs() -> None:
    """It only reads, leaves no token behind, ends in time, and gives way to the next run of its pull request."""
    assert list(excesses(WORKFLOW, {})) == []
    assert list(excesses(RELEASE, GRANTED)) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("permissions", "write-all"),
        ("permissions", {"contents": "write"}),
        ("jobs/dist/permissions", {"packages": "write"}),
        ("jobs/dist", {"steps": []}),
        ("jobs/lint/steps/0/with", {}),
        ("jobs/lint/steps/0/with", {"persist-credentials": True}),
    ],
)
def test_a_run_that_can_do_more_is_noticed(path: str, value: object) -> None:
    """Each of these alone is found."""
    assert len(list(excesses(broken(WORKFLOW, path, value), {}))) == 1
    assert list(excesses({"jobs": {}}, {})) != []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("jobs/build/permissions", {"contents": "write"}),
        ("jobs/ci/permissions", {"packages": "write"}),
        ("jobs/pypi/permissions", {"contents": "write", "id-token": "write"}),
        ("jobs/pypi/permissions", {}),
    ],
)
def test_a_release_that_can_do_more_or_less_is_noticed(path: str, value: object) -> None:
    """A job that publishes nothing has no right to, and one that does has just that."""
    assert len(list(excesses(broken(RELEASE, path, value), GRANTED))) == 1


def test_a_tag_is_released_once_ci_holds() -> None:
    """Nothing else starts a release; CI, and the check of the tag against the version, come before anything is sent."""
    assert triggers(RELEASE) == {"push": {"tags": ["v*"]}}
    assert "workflow_call" in triggers(WORKFLOW)
    assert RELEASE["jobs"]["ci"] == {"uses": "./.github/workflows/ci.yml"}
    # A group of one name would have the release wait for CI, and CI for the release.
    assert "github.workflow" in WORKFLOW["concurrency"]["group"]
    assert "github.workflow" not in RELEASE["concurrency"]["group"]
    assert 'tests.release tag "$GITHUB_REF_NAME"' in commands({"jobs": {"": RELEASE["jobs"]["build"]}})
    for name in GRANTED:
        assert RELEASE["jobs"][name]["needs"] == ["ci", "build"]
        assert RELEASE["jobs"][name]["environment"] == name


def test_a_release_needs_no_secret_and_names_no_host() -> None:
    """PyPI trusts the workflow, the image goes where a variable says, and both take what `build` has made."""
    text = (GITHUB / "workflows" / "release.yml").read_text()
    assert "secrets." not in text
    assert "://" not in text
    assert [step["uses"].partition("@")[0] for step in RELEASE["jobs"]["pypi"]["steps"]] == [
        "actions/download-artifact",
        "pypa/gh-action-pypi-publish",
    ]
    assert "with" not in RELEASE["jobs"]["pypi"]["steps"][1]
    given = [step["with"]["name"] for step in steps(RELEASE) if "/upload-artifact@" in step.get("uses", "")]
    taken = [step["with"]["name"] for step in steps(RELEASE) if "/download-artifact@" in step.get("uses", "")]
    assert given == taken == ["dist", "sbom"]


def test_the_image_is_released_with_its_bill_of_materials_and_provenance() -> None:
    """Both are attached, in the registry, to the digest of what was pushed, which was tried."""
    pushed = RELEASE["jobs"]["image"]["steps"]
    attached = [step["with"] for step in pushed if "actions/attest@" in step.get("uses", "")]
    assert [each.pop("sbom-path", None) for each in attached] == [None, "sbom.json"]
    for each in attached:
        assert each["subject-digest"] == "${{ steps.push.outputs.digest }}"
        assert each["push-to-registry"] is True
    [push] = [step["run"] for step in pushed if step.get("id") == "push"]
    assert "make image" in push
    assert "--push --metadata-file image.json" in push
    assert "/image.json" in (TOP / ".gitignore").read_text().splitlines()


def test_every_command_exists() -> None:
    """The Makefile has each target, and the lock brings each program, that workflow, hooks and texts name."""
    entries = [hook["entry"] for repo in HOOKS["repos"] for hook in repo["hooks"]]
    text = "\n".join([commands(WORKFLOW), commands(RELEASE), *entries, *(each.read_text() for each in TEXTS)])
    assert {"lint", "test", "dist", "setup", "lock", "audit", "image"} <= set(
        re.findall(r"\bmake ([a-z]+)", text)
    )
    assert missing_targets(text) == set()
    assert missing_commands(text) == set()


def test_a_command_that_is_missing_is_noticed() -> None:
    """A target or a program that was renamed is found wherever it is named."""
    workflow = broken(
        WORKFLOW, "jobs/lint/steps/2/run", "make lint\nmake proper && .venv/bin/no-such-tool --fix"
    )
    assert missing_targets(commands(workflow)) == {"proper"}
    assert missing_commands(commands(workflow)) == {"no-such-tool"}


def test_hooks_have_the_versions_of_the_lock() -> None:
    """Each hook runs make or a program of the virtual environment, so that it finds what `make lint` finds."""
    assert not_our_own(HOOKS) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("repos/0/hooks/1/entry", "ruff format"),
        ("repos/0/hooks/1/language", "python"),
        ("repos/0/repo", "https://github.com/astral-sh/ruff-pre-commit"),
    ],
)
def test_a_hook_with_another_version_is_noticed(path: str, value: str) -> None:
    """A program of the PATH, an environment of pre-commit's own and a foreign repository are found."""
    assert "ruff-format" in not_our_own(broken(HOOKS, path, value))


def test_the_tests_run_on_every_supported_python() -> None:
    """Classifiers, workflow, and the settings of pip, mypy and ruff agree on the versions of Python."""
    assert python_matrix(WORKFLOW) == set(supported())
    assert {"3.13"} <= named(WORKFLOW) <= set(supported())
    assert named(RELEASE) == {"3.13"}
    oldest = min(supported(), key=lambda version: int(version.partition(".")[2]))
    assert PYPROJECT["project"]["requires-python"] == f">={oldest}"
    assert PYPROJECT["tool"]["mypy"]["python_version"] == oldest
    assert PYPROJECT["tool"]["ruff"]["target-version"] == f"py{oldest.replace('.', '')}"


def test_a_python_that_is_not_supported_is_noticed() -> None:
    """A version that the matrix lacks or a step invents is found."""
    matrix = "jobs/tests/strategy/matrix/python"
    assert python_matrix(broken(WORKFLOW, matrix, ["3.11", "3.12", "3.13"])) != set(supported())
    assert not named(broken(WORKFLOW, "jobs/lint/steps/1/with/python-version", "3.10")) <= set(supported())
    assert not named(broken(WORKFLOW, "jobs/lint/steps/3/run", "mypy --python-version 3.15")) <= set(
        supported()
    )


def test_the_tests_find_what_the_workflow_installs() -> None:
    """RabbitMQ lands where the sandbox looks, in the version that compose runs too, and no program is left to apt."""
    assert "docker cp rabbitmq:/opt/. /opt\n" in commands(WORKFLOW)
    assert "/opt/rabbitmq/sbin" in server._DIRECT
    assert set(server._TEST_TOOLS.values()) - ON_THE_RUNNER <= set(commands(WORKFLOW).split())
    matrix = WORKFLOW["jobs"]["tests"]["strategy"]["matrix"]
    versions = {*matrix["rabbitmq"], *(extra["rabbitmq"] for extra in matrix["include"])}
    compose = yaml.safe_load((TOP / "docker-compose.yml").read_text())["services"]["rabbitmq"]["image"]
    assert versions == {"3.13", "4"}
    assert re.split("[:-]", compose)[1] in versions


def test_dependabot_looks_after_packages_actions_and_images() -> None:
    """Each has an entry, and the file that it reads is where it looks."""
    assert DEPENDABOT["version"] == 2
    assert unmanaged(DEPENDABOT) == set()
    assert [file for file in MANAGED.values() if not (TOP / file).exists()] == []


@pytest.mark.parametrize(
    ("path", "value"), [("updates/0/package-ecosystem", "pipenv"), ("updates/0/directory", "/worker")]
)
def test_what_dependabot_misses_is_noticed(path: str, value: str) -> None:
    """An entry of another kind, or for another folder, doesn't count."""
    assert unmanaged(broken(DEPENDABOT, path, value)) == {"pip"}


def test_the_template_names_files_that_exist() -> None:
    """Whatever file the template for pull requests names in backticks is there."""
    files = re.findall(r"`([\w./-]+\.\w+)`", (GITHUB / "pull_request_template.md").read_text())
    assert files
    assert [file for file in files if not (TOP / file).exists()] == []


@pytest.mark.parametrize(
    ("arguments", "measured"),
    [
        (["test"], True),
        (["test", "ARGS=-k session"], False),
        (["faults"], False),
        (["soak"], False),
    ],
)
def test_only_the_whole_run_is_measured(arguments: list[str], measured: bool) -> None:
    """A run of some of the tests doesn't fail by the floor of coverage, which is that of all of them."""
    make = shutil.which("make")
    assert make
    # Not the environment of a `make test` around this one, which hands on its ARGS.
    done = subprocess.run(  # noqa: S603 - it prints what it would do
        [make, "--dry-run", *arguments],
        cwd=TOP,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ".venv/bin/pytest" in done.stdout
    assert ("--cov" in done.stdout.split()) is measured
