"""Live views on a terminal: what they show, keys, and what they leave behind."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.support.commands import COMMAND, environment
from tests.support.waiting import until

DEADLINE = 60.0
LEAVE_ALTERNATE_SCREEN = "\x1b[?1049l"
STYLE = re.compile(r"\x1b\[[0-9;]*m")


class Terminal:
    """A live view that a person looks at: what it has shown so far, and keys."""

    def __init__(self, leader: int, process: subprocess.Popen[bytes]) -> None:
        self._leader = leader
        self.process = process
        self.text = ""
        os.set_blocking(leader, False)

    def has(self, text: str) -> bool:
        """Whether the terminal has been sent this by now."""
        try:
            while data := os.read(self._leader, 65536):
                self.text += data.decode(errors="replace")
        except OSError:  # nothing there now, or the other side has gone
            pass
        return text in self.text

    async def shows(self, text: str) -> None:
        await until(lambda: self.has(text), deadline=DEADLINE)

    def press(self, key: bytes) -> None:
        os.write(self._leader, key)

    async def ended(self) -> str:
        """Wait for the end; return what is on the normal screen then."""
        await until(lambda: self.has("") and self.process.poll() is not None, deadline=DEADLINE)
        self.has("")
        assert self.process.returncode == 0
        return STYLE.sub("", self.text.rpartition(LEAVE_ALTERNATE_SCREEN)[2])


@contextmanager
def terminal(
    *arguments: str | Path, piped: int | None = None, settings: Mapping[str, object] | None = None
) -> Iterator[Terminal]:
    """Run `lcm-worker` in a session of its own on a terminal of 80 by 24; another descriptor may be its input."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    script = 'exec "$@"' if piped is None else f'exec "$@" </dev/fd/{piped}'
    process = subprocess.Popen(  # noqa: S603 - our own command
        ["/bin/sh", "-c", script, "sh", COMMAND, *arguments],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0) and None,  # noqa: PLW1509 - no threads here
        pass_fds=[] if piped is None else [piped],
        env=environment(settings or {}),
    )
    os.close(follower)
    try:
        yield Terminal(leader, process)
    finally:
        process.kill()
        process.wait()
        os.close(leader)
