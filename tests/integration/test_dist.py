"""`make dist` gives archives that work, and the same ones for the same commit."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from tests.support.commands import program
from tests.support.patience import PATIENCE
from worker import __version__

TOP = Path(__file__).parents[2]
# Seconds since 1970: long ago, so that no file has the time of its copy.
COMMITTED = "1000000000"


def checkout(folder: Path) -> None:
    """Make a repository of the files that are here now, with one commit, and with this virtual environment."""
    listed = git(TOP, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")[:-1]
    for path in filter(None, listed):
        if (TOP / path).exists():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(TOP / path, folder / path)
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(
        folder,
        "-c",
        "user.name=a",
        "-c",
        "user.email=a@b.example",
        "commit",
        "--quiet",
        "--message",
        "All of it",
    )
    (folder / ".venv").symlink_to(sys.prefix)


def git(folder: Path, *words: str) -> str:
    """Return what git says; its commits are all of one time."""
    environment = os.environ | {"GIT_COMMITTER_DATE": f"@{COMMITTED} +0000"}
    return subprocess.run(  # noqa: S603 - the words are these tests' own
        ["git", "-C", str(folder), *words],  # noqa: S607 - whichever is on the PATH
        env=environment, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip


def digests(folder: Path) -> dict[str, str]:
    return {file.name: sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}


@pytest.mark.timeout_s(240)
async def test_the_archives_work_and_are_the_same_again(tmp_path: Path) -> None:
    """All checks of `make dist` pass, and whoever builds the same commit elsewhere has the same bytes."""
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
        checkout(folder)
    # Not made anew by make, which would clear it: it is the one that runs this test.
    done = await program("make", "-C", one, "--old-file=.venv/.ready", "dist")
    assert done.status == 0, done.err
    assert f"lcm-worker {__version__} looked up 50 outcomes" in done.out

    for file in (two / "worker").rglob("*.py"):
        file.chmod(0o600)
        os.utime(file, (0, 0))
    build = [sys.executable, "-m", "build", "--no-isolation", str(two)]
    process = await asyncio.create_subprocess_exec(
        *build, env=os.environ | {"SOURCE_DATE_EPOCH": COMMITTED}, stdout=subprocess.DEVNULL
    )
    async with asyncio.timeout(60 * PATIENCE):
        assert await process.wait() == 0
    assert digests(one / "dist") == digests(two / "dist")
    assert len(digests(one / "dist")) == 2
