"""The folder of a private node is made where nobody else can change it, or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from worker.contract.errors import FolderUnfit
from worker.sandbox.folder import write_folder
from worker.sandbox.node import Node


def a_link(folder: Path) -> None:
    folder.with_name("target").mkdir()
    folder.symlink_to("target")


def open_to_all(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o777)


def of_another_user(folder: Path) -> None:
    folder.mkdir(mode=0o755)
    if os.geteuid() == 0:
        os.chown(folder, 65534, 65534)
    else:
        folder.chmod(0o775)


@pytest.mark.parametrize("make", [a_link, open_to_all, of_another_user])
def test_a_base_that_others_can_change_is_refused(tmp_path: Path, make: Callable[[Path], None]) -> None:
    """RabbitMQ's scripts run what is in the folder: a base that is not ours alone is told in a line, and left."""
    base = tmp_path / ".sandbox"
    make(base)
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
