"""What the wheel and the sdist hold, and what they have to: the files that git tracks, and no other."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from packaging.metadata import Metadata

_DIST_INFO = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"}
_SOURCES = (
    "CHANGELOG.md",
    "LICENSE",
    "README.md",
    "SECURITY.md",
    "config/",
    "docs/",
    "pyproject.toml",
    "requirements.lock",
    "worker/",
)


def mistakes(wheel: Path, sdist: Path, tracked: Iterable[str], version: str) -> Iterator[str]:
    """Yield what is wrong with the two archives of a version; `tracked` are the paths that git tracks."""
    metadata = metadata_of(wheel)
    if str(metadata.version) != version:
        yield f"{wheel.name} is of the version {metadata.version}, not {version}"
    tracked = set(tracked)
    modules = {path for path in tracked if path.startswith("worker/")}
    sources = {path for path in tracked if path.startswith(_SOURCES)}
    about = f"lcm_outcome_worker-{version}.dist-info"
    yield from _differences(wheel.name, in_wheel(wheel), modules | {f"{about}/{name}" for name in _DIST_INFO})
    yield from _differences(sdist.name, in_sdist(sdist), sources | {"PKG-INFO"})


def metadata_of(wheel: Path) -> Metadata:
    """Return a wheel's metadata; an ExceptionGroup names each field that the standard does not allow."""
    with zipfile.ZipFile(wheel) as archive:
        [path] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return Metadata.from_email(archive.read(path))


def in_wheel(wheel: Path) -> set[str]:
    """Return the paths of the files in a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def in_sdist(sdist: Path) -> set[str]:
    """Return the paths of the files in an sdist, without the one folder that all of them are in."""
    with tarfile.open(sdist) as archive:
        return {name.partition("/")[2] for name in archive.getnames()}


def tracked_files(top: Path) -> list[str]:
    """Return the paths of the files that git tracks in a checkout."""
    git = shutil.which("git")
    if git is None:
        raise FileNotFoundError("git is missing: run `sudo apt-get install git`, then try again")
    done = subprocess.run(  # noqa: S603 - only the folder varies
        [git, "ls-files", "-z"], cwd=top, check=True, capture_output=True, text=True
    )
    return done.stdout.split("\0")[:-1]


def _differences(name: str, found: set[str], expected: set[str]) -> Iterator[str]:
    yield from (f"{name} lacks {path}" for path in sorted(expected - found))
    yield from (f"{name} holds {path}, which does not belong in it" for path in sorted(found - expected))
