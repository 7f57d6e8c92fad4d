"""The folder of a private node is made where nobody else can change it, or not at all."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from worker.contract.errors import FolderUnfit
from worker.sandbox.folder import write_folder
from worker.sandbox.node import Node, NodeFailed, ServerMissing


def a_link(folder: Path) -> None:
    folder.with_name("target").mkdir()
    folder.symlink_to("target")


def of_another_user(folder: Path) -> None:
    folder.mkdir(mode=0o755)
    if os.geteuid() == 0:
        os.chown(folder, 65534, 65534)


@pytest.mark.parametrize("make", [a_link, of_another_user])
def test_a_base_that_others_can_change_is_refused(
    tmp_path: Path, make: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """RabbitMQ's scripts run what is in the folder: a base that is not ours is told in a line, and left."""
    base = tmp_path / ".sandbox"
    make(base)
    if base.stat().st_uid == os.geteuid():
        monkeypatch.setattr(os, "geteuid", lambda: base.stat().st_uid + 1)
    with pytest.raises(FolderUnfit) as refused:
        write_folder(base / "sandbox-1", cookie="c00kie", config={})
    (line,) = refused.value.lines
    assert line.startswith(f"{base}: ")
    assert line.endswith("; run this in a folder of your own")
    assert not list(base.iterdir())


def test_what_is_made_is_its_owners(tmp_path: Path) -> None:
    """The base, and the node's folder in it, whatever the umask allows."""
    usual = os.umask(0)
    try:
        write_folder(tmp_path / "base" / "sandbox-1", cookie="c00kie", config={})
    finally:
        os.umask(usual)
    for folder in (tmp_path / "base", tmp_path / "base" / "sandbox-1"):
        assert folder.stat().st_mode & 0o777 == 0o700


def test_the_folder_of_a_node_is_made_anew(tmp_path: Path) -> None:
    """What somebody has put at its name is not taken for the node's."""
    base = tmp_path / "base"
    base.mkdir(mode=0o700)
    (base / "sandbox-1").symlink_to(tmp_path)
    with pytest.raises(FolderUnfit, match="File exists"):
        write_folder(base / "sandbox-1", cookie="c00kie", config={})


async def test_a_node_starts_in_no_such_folder(tmp_path: Path) -> None:
    """Whoever starts one gets the same refusal, before anything is written or runs."""
    a_link(tmp_path / "base")
    node = Node(base=tmp_path / "base")
    with pytest.raises(FolderUnfit, match="is a symbolic link"):
        await node.start()
    assert not list((tmp_path / "target").iterdir())


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.EACCES, "Permission denied; run this in a folder of your own"),
        (errno.EROFS, "Read-only file system; run this in a folder of your own"),
        (errno.ENOSPC, "No space left on device; make room there, or run this in a folder on another disk"),
        (errno.EDQUOT, "Disk quota exceeded; make room there, or run this in a folder on another disk"),
    ],
)
def test_a_folder_that_cannot_be_written_is_told_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, remedy: str
) -> None:
    """One line, whether the base can't be made or, since a disk is full, what is in it."""

    def refuse(path: object, *_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(os, "mkdir", refuse)
    with pytest.raises(FolderUnfit) as refused:
        write_folder(tmp_path / "base" / "sandbox-1", cookie="c00kie", config={})
    assert refused.value.lines == [f"{tmp_path / 'base'}: {remedy}"]


def test_what_was_begun_on_a_full_disk_does_not_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cookie least of all; an error without a file's name is told with the folder's."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(FolderUnfit, match=r"/base/sandbox-1: No space left on device; make room"):
        write_folder(tmp_path / "base" / "sandbox-1", cookie="c00kie", config={})
    assert not list((tmp_path / "base").iterdir())


def test_a_present_folder_that_is_gone_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell can stay in a folder that somebody has removed."""
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(FolderUnfit, match=r"^the present folder: .*; run this in a folder of your own$"):
        Node()


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A server that fails at once, in place of RabbitMQ's."""
    file = tmp_path / "rabbitmq-server"
    file.write_text("#!/bin/sh\necho no room for a node\necho here >&2\nexit 7\n")
    file.chmod(0o755)
    monkeypatch.setattr("worker.sandbox.server._DIRECT", (str(tmp_path),))
    return file


async def failure(tmp_path: Path) -> list[str]:
    """Return the lines that tell why a node does not start."""
    with pytest.raises((NodeFailed, FolderUnfit)) as failed:
        async with Node(base=tmp_path / "base", name="node@localhost"):
            pytest.fail("it started")
    assert not list((tmp_path / "base").iterdir())
    return failed.value.lines


@pytest.mark.usefixtures("script")
async def test_the_log_of_a_node_that_fails_is_told_line_by_line(tmp_path: Path) -> None:
    """What it logged keeps its lines, so that people can read it."""
    assert await failure(tmp_path) == [
        "node@localhost ended with status 7 while it started; its log ends with:",
        "no room for a node",
        "here",
    ]


@pytest.mark.usefixtures("script")
async def test_a_node_that_fails_on_a_full_disk_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its log, which could not be written either, says less."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**6, 10**6, 0))
    (line,) = await failure(tmp_path)
    assert line.endswith("No space left on device; make room there, or run this in a folder on another disk")


@pytest.fixture
def broken_script(tmp_path: Path, script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that the system can't run, on a machine without setpriv, which would tell it in the log."""
    script.write_text("#!/no/such/shell\n")
    (tmp_path / "programs").mkdir()
    (tmp_path / "programs" / "dirname").symlink_to(str(shutil.which("dirname")))
    monkeypatch.setenv("PATH", str(tmp_path / "programs"))


@pytest.mark.usefixtures("broken_script")
async def test_a_script_that_cannot_run_is_told(tmp_path: Path) -> None:
    """It is no fault of the folder."""
    (line,) = await failure(tmp_path)
    assert "rabbitmq-server: No such file or directory; see whether RabbitMQ and Erlang are whole" in line


@pytest.mark.usefixtures("script")
async def test_an_empty_path_is_the_systems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty PATH would mean the present folder, where anybody may have put a program."""
    monkeypatch.setenv("PATH", "")
    assert (await failure(tmp_path))[1:] == ["no room for a node", "here"]


@pytest.mark.usefixtures("script")
async def test_a_path_without_programs_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """RabbitMQ's scripts would fail one after the other."""
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(ServerMissing) as missing:
        await Node(base=tmp_path / "base").start()
    (line,) = missing.value.lines
    assert "no `dirname` on the PATH" in line
    assert "/usr/bin" in line
    assert not (tmp_path / "base").exists()
