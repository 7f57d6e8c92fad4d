"""The systemd unit's command, run as systemd would: by a user of its own, who can read its credentials."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest

from tests.support.channel import open_channel
from tests.support.commands import COMMAND, ending
from tests.support.in_process import all_good, numbered, publish, results
from tests.support.patience import PATIENCE
from tests.support.service_unit import command, credentials, environment
from worker.simulator.server import Behaviour, Simulator

# Those that systemd draws from for DynamicUser=.
_USERS = range(61184, 65520)
_STAGE = """
set -e
mount --make-rprivate /
if [ -n "$HIDDEN" ]; then
    mount --bind "$PREFIX" /mnt
    mount -t tmpfs -o mode=0755 none "$HIDDEN"
    mkdir -p "$PREFIX"
    mount --bind /mnt "$PREFIX"
fi
mount -o remount,bind,ro /
exec setpriv --reuid "$ID" --regid "$ID" --clear-groups --no-new-privs --inh-caps=-all --bounding-set=-all \\
    -- env -i "$@"
"""


def hidden_above(path: Path) -> Path | None:
    """Return the first folder on the way to a path that only its owner may go through."""
    return next((each for each in reversed(path.parents) if not each.stat().st_mode & 0o001), None)


def can_change_user(*paths: Path) -> bool:
    """Tell whether a process of another user can be started here that reaches these paths."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None or shutil.which("unshare") is None:
        return False
    unshare = subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True)  # noqa: S607 - util-linux
    return unshare.returncode == 0 and not any(hidden_above(path) for path in paths)


@asynccontextmanager
async def service(
    folder: Path, uid: int | None, settings: dict[str, bytes]
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Give the unit's process; `settings` are the contents of its credentials. Without `uid` it is one of ours."""
    place = folder / "credentials"
    place.mkdir()
    for name, content in settings.items():
        file = place / name
        file.write_bytes(content)
        file.chmod(0o400)
        os.chown(file, uid or -1, uid or -1)
    os.chown(place, uid or -1, uid or -1)
    place.chmod(0o500)
    specifiers = {"d": str(place), "H": "host-1", "i": "1"}
    program, *arguments = command(specifiers)
    assert program == "/opt/lcm-outcome-worker/bin/lcm-worker"
    variables = environment(specifiers) | {"CREDENTIALS_DIRECTORY": str(place)}
    words = [*(f"{name}={value}" for name, value in variables.items()), str(COMMAND), *arguments]
    prefix = ["unshare", "--mount", "sh", "-c", _STAGE, "sh"] if uid else ["env", "-i"]
    interpreter = Path(sys.base_prefix)
    process = await asyncio.create_subprocess_exec(
        *prefix,
        *words,
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env={
            "PATH": os.environ["PATH"],
            "ID": str(uid),
            "PREFIX": str(interpreter),
            "HIDDEN": str(hidden_above(interpreter) or ""),
        },
        cwd="/",
    )
    async with ending(process):
        yield process


@pytest.fixture
def folder() -> Iterator[Path]:
    """Give a folder that every user may go through, which those of pytest are not."""
    with TemporaryDirectory() as made:
        Path(made).chmod(0o711)
        yield Path(made)


async def test_the_unit_runs_with_its_credentials_alone(vhost: str, folder: Path) -> None:
    """A random user with an empty environment, on a read-only root: ready, a job done, and SIGTERM ends it with 0."""
    uid = secrets.choice(_USERS) if can_change_user(COMMAND, folder / "any") else None
    async with Simulator(Behaviour(credentials="me:t0ken")) as lcm, open_channel(vhost) as channel:
        broker_url = vhost.replace("guest:guest@", "guest@")
        given = {
            "worker.toml": f'broker.url = "{broker_url}"\nlcm.url = "{lcm.url}"\nlcm.username = "me"\n'.encode(),
            "broker.password": b"guest\n",
            "lcm.password": b"t0ken\n",
        }
        assert given.keys() == credentials().keys()
        async with service(folder, uid, given) as process, asyncio.timeout(60 * PATIENCE):
            assert process.stderr is not None
            told = []
            async for line in process.stderr:
                told.append(line)
                if b'"worker.ready"' in line:
                    break
            assert told, "it ended at once"
            assert b'"worker.ready"' in told[-1], b"".join(told)
            assert msgspec.json.decode(told[-1])["worker"] == "host-1-1"
            if uid is not None:
                assert os.stat(f"/proc/{process.pid}").st_uid == uid  # noqa: PTH116 - no disk is asked
            await publish(channel, *numbered(1))
            all_good(await results(channel, 1), 1)
            process.send_signal(signal.SIGTERM)
            await process.stderr.read()
            assert await process.wait() == 0
