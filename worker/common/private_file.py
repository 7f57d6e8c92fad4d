"""Files for what is confidential: made for their owner alone, and never by way of what somebody else has put there.

In a folder that others may write to, a name can be a link to a file of ours, a pipe of theirs, or their own file.
"""

from __future__ import annotations

import errno
import os
import stat

_OWNER = 0o600
# A pipe or a device is not waited for, and no terminal becomes ours; what it is tells `fstat`.
_CAREFUL = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def private(path: str, flags: int) -> int:
    """Open a file for what is confidential; for the `opener` of `open`.

    A file that is made is for its owner alone. One that is there keeps its mode, which its owner has chosen.

    Raises:
        OSError: it can't be opened, is no regular file, is a link to one, or belongs to another user.
    """
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


def _check(descriptor: int, path: str) -> None:
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "is no regular file", path)
    if found.st_uid != os.geteuid():
        raise OSError(errno.EPERM, "belongs to another user, who could read and change it", path)
