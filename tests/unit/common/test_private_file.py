"""Files for what is confidential: whatever stands at their name, nobody else gets to read or change what is written."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from worker.common.private_file import private, private_folder

ADDING = os.O_WRONLY | os.O_CREAT | os.O_APPEND
OVERWRITING = os.O_WRONLY | os.O_CREAT | os.O_TRUNC


def a_link(path: Path) -> None:
    path.with_name("ours").write_text("kept")
    path.symlink_to(path.with_name("ours"))


def a_link_to_nothing(path: Path) -> None:
    path.symlink_to(path.with_name("ours"))


def a_pipe_with_a_reader(path: Path) -> int:
    os.mkfifo(path)
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK)


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))


def test_a_new_file_is_its_owners(tmp_path: Path) -> None:
    """Whatever the umask allows: readable and writable for its owner alone, and not left open to children."""
    usual = os.umask(0)
    try:
        with open(tmp_path / "new", "ab", opener=private) as file:
            assert os.fstat(file.fileno()).st_mode & 0o777 == 0o600
            assert not os.get_inheritable(file.fileno())
    finally:
        os.umask(usual)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (a_link, "is a symbolic link"),
        (a_link_to_nothing, "is a symbolic link"),
        (os.mkfifo, "is no regular file"),
        (a_pipe_with_a_reader, "is no regular file"),
        (a_socket, "is no regular file"),
        (Path.mkdir, "is no regular file"),
    ],
)
@pytest.mark.parametrize("flags", [ADDING, OVERWRITING])
def test_what_stands_in_the_way_is_refused(
    tmp_path: Path, make: Callable[[Path], object], why: str, flags: int
) -> None:
    """A link, be it to nothing, a pipe, with a reader or not, and the like: none is opened or waited for."""
    reader = make(tmp_path / "there")
    with pytest.raises(OSError, match=why):
        private(str(tmp_path / "there"), flags)
    if isinstance(reader, int):
        os.close(reader)
    ours = tmp_path / "ours"
    assert not ours.exists() or ours.read_text() == "kept"


def test_a_device_is_refused() -> None:
    """What is written to /dev/null, or to a terminal, is kept by nobody."""
    with pytest.raises(OSError, match="is no regular file"):
        private("/dev/null", ADDING)


@pytest.mark.parametrize("flags", [ADDING, OVERWRITING])
def test_a_file_of_another_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: int
) -> None:
    """Its owner could read all that is added, and change it; the file stays as it was."""
    file = tmp_path / "theirs"
    file.write_text("kept")
    monkeypatch.setattr(os, "geteuid", lambda: file.stat().st_uid + 1)
    with pytest.raises(OSError, match="belongs to another user"):
        private(str(file), flags)
    assert file.read_text() == "kept"


def give_away(link: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a link belong to neither us nor root."""
    if os.geteuid() == 0:
        os.chown(link, 65534, -1, follow_symlinks=False)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: link.lstat().st_uid + 1)


@pytest.mark.parametrize("path", ["theirs/new", "theirs/deep/new", "theirs/../new", "ours/new"])
def test_a_folder_by_way_of_a_link_of_another_user_is_refused(
    tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever made the link says where the file is made; be it a part of the path, or of what a link of ours names."""
    (tmp_path / "folder" / "deep").mkdir(parents=True)
    (tmp_path / "theirs").symlink_to("folder")
    (tmp_path / "ours").symlink_to("theirs/deep")
    give_away(tmp_path / "theirs", monkeypatch)
    with pytest.raises(OSError, match="a link of another user"):
        private(str(tmp_path / path), ADDING)
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


def test_a_folder_by_way_of_a_link_of_ours_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Absolute or relative, from where the command runs as well; a link that leads nowhere is told."""
    (tmp_path / "folder" / "deep").mkdir(parents=True)
    (tmp_path / "first").symlink_to(tmp_path / "folder")
    (tmp_path / "second").symlink_to("first/deep")
    monkeypatch.chdir(tmp_path)
    os.close(private("second/new", ADDING))
    assert (tmp_path / "folder" / "deep" / "new").is_file()
    for name, target in (("round", "round"), ("nowhere", "gone")):
        (tmp_path / name).symlink_to(target)
        with pytest.raises(OSError, match=f"{name}"):
            private(f"{name}/new", ADDING)


def test_a_file_of_ours_keeps_its_mode(tmp_path: Path) -> None:
    """Who made it readable for a group, meant it: it is added to, and stays so."""
    file = tmp_path / "ours"
    file.write_text("a")
    file.chmod(0o640)
    with open(file, "ab", opener=private) as added:
        added.write(b"b")
    assert (file.read_text(), file.stat().st_mode & 0o777) == ("ab", 0o640)
    with open(file, "w", encoding="ascii", opener=private) as overwritten:
        overwritten.write("c")
    assert (file.read_text(), file.stat().st_mode & 0o777) == ("c", 0o640)


def test_nothing_is_overwritten_where_a_new_file_is_asked_for(tmp_path: Path) -> None:
    """With mode x even a link to nothing is something that exists."""
    a_link_to_nothing(tmp_path / "there")
    with pytest.raises(FileExistsError):
        private(str(tmp_path / "there"), ADDING | os.O_EXCL)


def test_a_new_folder_is_its_owners(tmp_path: Path) -> None:
    """Whatever the umask allows; and one that is there is taken as it is, where nobody else can write to it."""
    usual = os.umask(0)
    try:
        private_folder(tmp_path / "new")
    finally:
        os.umask(usual)
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    (tmp_path / "new").chmod(0o755)
    private_folder(tmp_path / "new")
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o755


def a_link_to_a_folder(path: Path) -> None:
    path.with_name("ours").mkdir()
    path.symlink_to("ours")


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (a_link_to_a_folder, "is a symbolic link"),
        (a_link_to_nothing, "is a symbolic link"),
        (Path.touch, "is no folder"),
    ],
)
def test_what_stands_in_the_way_of_a_folder_is_refused(
    tmp_path: Path, make: Callable[[Path], object], why: str
) -> None:
    """A link, a file, or a folder in which others can change what we write; nothing is made at a link's target."""
    make(tmp_path / "there")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OSError, match=why):
        private_folder(tmp_path / "there")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its owner can put another in place of whatever is in it, whatever its mode says."""
    (tmp_path / "theirs").mkdir(mode=0o700)
    if os.geteuid() == 0:
        os.chown(tmp_path / "theirs", 65534, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(OSError, match="belongs to another user"):
        private_folder(tmp_path / "theirs")


def test_a_folder_within_a_link_of_another_user_is_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever made the link would say where the folder is."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "theirs").symlink_to("folder")
    give_away(tmp_path / "theirs", monkeypatch)
    with pytest.raises(OSError, match="a link of another user"):
        private_folder(tmp_path / "theirs" / "new")
    assert not list((tmp_path / "folder").iterdir())


@pytest.mark.parametrize("mode", [0o770, 0o703, 0o1777])
def test_a_folder_in_which_others_could_write_is_ours_alone_from_now_on(tmp_path: Path, mode: int) -> None:
    """As one that was made with a umask that lets a group write."""
    (tmp_path / "there").mkdir()
    (tmp_path / "there").chmod(mode)
    private_folder(tmp_path / "there")
    assert (tmp_path / "there").stat().st_mode & 0o777 == 0o700
