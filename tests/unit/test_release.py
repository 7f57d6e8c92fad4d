"""What is released is what git tracks, under one version that changelog, tag and package agree on."""

from __future__ import annotations

import io
import tarfile
import tomllib
import zipfile
from collections.abc import Iterable
from datetime import date
from pathlib import Path

import pytest

from tests.release.__main__ import main
from tests.release.archives import mistakes, tracked_files
from tests.release.changelog import Release, objections, releases, unreleased
from worker import __version__

TOP = Path(__file__).parents[2]
CHANGELOG = (TOP / "CHANGELOG.md").read_text()
PROJECT = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]

TRACKED = ("LICENSE", "README.md", "tests/test_a.py", "worker/__init__.py", "worker/data.json")
SOURCES = ("PKG-INFO", "LICENSE", "README.md", "worker/__init__.py", "worker/data.json")
ABOUT = "lcm_outcome_worker-1.2.3.dist-info"
IN_WHEEL = (
    "worker/__init__.py",
    "worker/data.json",
    *(f"{ABOUT}/{name}" for name in ("RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE")),
)
METADATA = "Metadata-Version: 2.4\nName: lcm-outcome-worker\nVersion: 1.2.3\n"
TWO = "# Changelog\n\n## [1.1.0] - 2027-01-02\n\n- b\n\n## [1.0.0] - 2026-11-30\n\n- a\n"


def wheel_of(folder: Path, names: Iterable[str] = IN_WHEEL, metadata: str = METADATA) -> Path:
    """Write a wheel of empty files, but for its metadata."""
    path = folder / "lcm_outcome_worker-1.2.3-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{ABOUT}/METADATA", metadata)
        for name in names:
            archive.writestr(name, "")
    return path


def sdist_of(folder: Path, names: Iterable[str] = SOURCES) -> Path:
    """Write an sdist of empty files."""
    path = folder / "lcm_outcome_worker-1.2.3.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(f"lcm_outcome_worker-1.2.3/{name}"), io.BytesIO())
    return path


def test_archives_that_hold_what_git_tracks_are_right(tmp_path: Path) -> None:
    """The package's files are in both, what belongs to it in the sdist, and the tests in neither."""
    assert list(mistakes(wheel_of(tmp_path), sdist_of(tmp_path), TRACKED, "1.2.3")) == []


@pytest.mark.parametrize("path", ["worker/secret.pem", ".sandbox/cookie", "tests/test_a.py", "setup.cfg"])
def test_a_file_that_does_not_belong_in_an_archive_is_noticed(tmp_path: Path, path: str) -> None:
    """A file beside the package's own, left by somebody or not part of it, is named for each archive."""
    wheel, sdist = wheel_of(tmp_path, [*IN_WHEEL, path]), sdist_of(tmp_path, [*SOURCES, path])
    assert list(mistakes(wheel, sdist, TRACKED, "1.2.3")) == [
        f"{archive.name} holds {path}, which does not belong in it" for archive in (wheel, sdist)
    ]


def test_a_file_that_an_archive_lacks_is_noticed(tmp_path: Path) -> None:
    """Data without which the package does not work is named for each archive."""
    less = [[name for name in names if name != "worker/data.json"] for names in (IN_WHEEL, SOURCES)]
    wheel, sdist = wheel_of(tmp_path, less[0]), sdist_of(tmp_path, less[1])
    assert list(mistakes(wheel, sdist, TRACKED, "1.2.3")) == [
        f"{archive.name} lacks worker/data.json" for archive in (wheel, sdist)
    ]


def test_an_archive_of_another_version_is_noticed(tmp_path: Path) -> None:
    """The version is the one of the metadata, whatever the file is called."""
    wheel = wheel_of(tmp_path, metadata=METADATA.replace("1.2.3", "1.2.4"))
    assert list(mistakes(wheel, sdist_of(tmp_path), TRACKED, "1.2.3")) == [
        f"{wheel.name} is of the version 1.2.4, not 1.2.3"
    ]


def test_metadata_against_the_standard_is_refused(tmp_path: Path) -> None:
    """A licence that is no expression of SPDX, which an index would refuse, is found before."""
    wheel = wheel_of(tmp_path, metadata=METADATA + "License-Expression: The usual one\n")
    with pytest.raises(ExceptionGroup) as refused:
        list(mistakes(wheel, sdist_of(tmp_path), TRACKED, "1.2.3"))
    assert "license-expression" in str(refused.value.exceptions[0])


def test_what_git_tracks_is_told_by_git() -> None:
    """The paths are those of files that exist, from the top of the checkout."""
    tracked = tracked_files(TOP)
    assert {"pyproject.toml", "worker/__init__.py", "config/lcm-outcome-worker@.service"} <= {*tracked}


def test_the_version_stands_in_one_place() -> None:
    """What is installed, and so what the command, the log and the documents tell, is the version of pyproject.toml."""
    assert __version__ == PROJECT["version"]


def test_the_newest_version_of_the_changelog_is_the_projects() -> None:
    """Each version has a heading with its date, the newest first, and the newest is the one of pyproject.toml."""
    found = releases(CHANGELOG)
    assert found[0].version == PROJECT["version"]
    assert found == sorted(found, key=lambda each: each.date, reverse=True)
    assert len({each.version for each in found}) == len(found)


def test_the_headings_of_the_changelog_are_read() -> None:
    """Versions and dates come in the order of the text; what is not released yet has neither."""
    text = TWO.replace("## [1.1.0]", "## [Unreleased]\n\n### Fixed\n\n- c\n\n## [1.1.0]")
    assert releases(text) == releases(TWO)
    assert releases(text) == [Release("1.1.0", date(2027, 1, 2)), Release("1.0.0", date(2026, 11, 30))]
    assert (unreleased(TWO), unreleased(text)) == ("", "### Fixed\n\n- c")


@pytest.mark.parametrize(
    "heading", ["## 1.2.0 - 2027-01-03", "## [1.2.0]", "## [1.2] - 2027-01-03", "## [1.2.0] - 2027-13-03"]
)
def test_a_version_without_its_date_is_noticed(heading: str) -> None:
    """A heading in another form, or with a day that there is not, is an error."""
    with pytest.raises(ValueError, match=r"no heading of a release|month must be"):
        releases(f"{heading}\n{TWO}")


@pytest.mark.parametrize(
    ("tag", "version", "text", "objection"),
    [
        ("v1.1.0", "1.1.0", TWO, None),
        ("1.1.0", "1.1.0", TWO, "the tag is 1.1.0, and the version of pyproject.toml 1.1.0: tag v1.1.0"),
        ("v1.1.1", "1.1.0", TWO, "the tag is v1.1.1, and the version of pyproject.toml 1.1.0: tag v1.1.0"),
        ("v1.2.0", "1.2.0", TWO, "the newest version of CHANGELOG.md is not 1.2.0"),
        (
            "v1.1.0",
            "1.1.0",
            TWO.replace("## [1.1.0]", "## [Unreleased]\n\n- c\n\n## [1.1.0]"),
            "CHANGELOG.md holds changes under [Unreleased]: move them to 1.1.0",
        ),
    ],
)
def test_only_a_tag_of_the_projects_version_is_released(
    tag: str, version: str, text: str, objection: str | None
) -> None:
    """Tag, project and changelog have one version, and no change is left out."""
    assert list(objections(tag, version, text)) == ([objection] if objection else [])


def test_a_wrong_tag_ends_the_release_workflow(capsys: pytest.CaptureFixture[str]) -> None:
    """The command of the workflow ends with status 1 and says why."""
    assert main(["tag", "v0.0.1"]) == 1
    assert capsys.readouterr().err == (
        f"the tag is v0.0.1, and the version of pyproject.toml {__version__}: tag v{__version__}\n"
    )
