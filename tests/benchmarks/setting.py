"""Where figures come from: the machine, how busy it was, and the versions of what was measured."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

from tests.benchmarks.processes import CHECKOUT
from worker.sandbox.node import Node

_PACKAGES = ("aio-pika", "aiormq", "faststream", "msgspec", "orjson", "uvloop", "websockets")


async def describe(node: Node) -> str:
    """Return it as one paragraph."""
    broker = (await node.eval("rabbit_misc:version()")).strip('"')
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    return (
        f"{os.cpu_count()} CPUs ({_processor()}), {platform.system()} {platform.release()}, load average "
        f"{os.getloadavg()[0]:.1f} at the start. Commit {_commit()}. Python {platform.python_version()}, "
        f"RabbitMQ {broker}, {packages}."
    )


def _processor() -> str:
    try:
        found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1] if found else platform.machine()


def _commit() -> str:
    git = shutil.which("git")
    if git is None:
        return "unknown"
    done = subprocess.run(  # noqa: S603 - it only reads
        [git, "describe", "--always", "--dirty"], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"
