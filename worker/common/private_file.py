"""Files and folders for what is confidential: their owner's alone, and never by way of what somebody else put there.

In a folder that others may write to, a name can be a link to a file of ours, a pipe of theirs, or their own file.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path

_OWNER = 0o600
# A pipe or a device is not waited for, and no terminal becomes ours; what it is tells `fstat`.
_CAREFUL = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def private(path: str, flags: int) -> int:
    """Open a file for what is confidential; for the `opener` of `open`.

    A file that is made is for its owner alone. One that is there keeps its mode, which its owner has chosen.

    Raises:
        OSError: it can't be opened, is no regular file, is a link to one, belongs to another user, or is in a folder
            that a link of another user leads to.
    """
    _check_folders(Path(path).absolute())
    try:
        descriptor = os.open(path, flags & ~os.O_TRUNC | _CAREFUL, _OWNER)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(error.errno, "is a symbolic link; name the file itself", path) from error
        if error.errno in {errno.ENXIO, errno.EISDIR}:  # a pipe that nobody reads, a socket, a folder
            raise OSError(error.errno, "is no regular file", path) from error
        raise
    try:
        _check(descriptor, path)
        if flags & os.O_TRUNC:
            os.ftruncate(descriptor, 0)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def private_folder(path: Path) -> None:
    """Make a folder for its owner alone, or take the one that is there.

    Where others can write in that one, all their rights to it are taken away. The folder above it must exist.

    Raises:
        OSError: it can't be made, is a link or no folder, belongs to another user, or leads by way of a link of theirs.
    """
    path = path.absolute()
    _check_folders(path)
    with suppress(FileExistsError):
        path.mkdir(0o700)
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        raise OSError(errno.ELOOP, "is a symbolic link", str(path))
    if not stat.S_ISDIR(found.st_mode):
        raise OSError(errno.ENOTDIR, "is no folder", str(path))
    if found.st_uid != os.geteuid():
        raise OSError(errno.EPERM, "belongs to another user, who could change what is in it", str(path))
    if found.st_mode & _OTHERS_WRITE:
        path.chmod(0o700)


def _check_folders(path: Path) -> None:
    """Refuse a path that leads by way of another user's link; also one behind a link of our own."""
    for folder in path.parents:
        if folder.is_symlink():
            if folder.lstat().st_uid not in {0, os.geteuid()}:
                raise OSError(errno.EPERM, f"leads by way of {folder}, a link of another user", str(path))
            folder.stat()  # Raises for a link that leads to itself.
            _check_folders(folder.parent / folder.readlink() / path.name)


def _check(descriptor: int, path: str) -> None:
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "is no regular file", path)
    if found.st_uid != os.geteuid():
        raise OSError(errno.EPERM, "belongs to another user, who could read and change it", path)
