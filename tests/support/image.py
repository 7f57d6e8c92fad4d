"""The container image, built and run without an engine: the Dockerfile's steps, each stage in a root of its own.

A root is this machine's own under an overlay in memory, in a mount namespace: what the steps write is seen by nobody
else, and is gone at the end. The base image is all that is not tried: its Python is the one that runs the tests.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.dockerfile import TOP, Stage, Step, let_through, stages

# What the base image sets.
_PATH = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
# Of whoever runs the tests: where packages come from, and by which way.
_FROM_OUTSIDE = ("HOME", "PIP_", "SSL_CERT_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
_BASE = r"""
set -eu
mount --make-rprivate /
mount -t tmpfs none "$PLACE"
base() {
    mkdir -p "$PLACE/$1/upper" "$PLACE/$1/work" "$PLACE/$1/root"
    mount -t overlay overlay \
        -o "lowerdir=/,upperdir=$PLACE/$1/upper,workdir=$PLACE/$1/work" "$PLACE/$1/root"
    cd "$PLACE/$1/root"
    for folder in /dev /proc "$PREFIX"; do
        mkdir -p ".$folder"
        mount --rbind "$folder" ".$folder"
    done
    above=$PREFIX
    while above=$(dirname "$above") && [ "$above" != / ]; do chmod a+x ".$above"; done
    cp /etc/resolv.conf /etc/hosts etc/
    rm -f usr/local/bin/python
    printf '#!/bin/sh\nexec "%s" "$@"\n' "$PYTHON" > usr/local/bin/python
    chmod 755 usr/local/bin/python
}
"""
_READY = r"""
mount -o remount,ro "$PLACE/$1/root"
mount -t tmpfs -o mode=1777 none "$PLACE/$1/root/tmp"
echo built
read -r _ || true
"""


@dataclass(frozen=True)
class Image:
    """An image that was built, and whose file system is there as long as the process `holder` lives."""

    stage: Stage
    root: Path
    holder: int

    def words(self, *command: str, environment: Mapping[str, str] | None = None) -> list[str]:
        """Return how to run a command in a container: as the image's user, on a read-only root."""
        enter = ["nsenter", f"--target={self.holder}", "--mount"]
        user = [f"--userspec={self.stage.user}", "--groups="]
        variables = self.stage.environment | dict(environment or {})
        place = ["sh", "-c", 'cd "$0" && exec "$@"', self.stage.folder]
        return [*enter, "chroot", *user, str(self.root), "env", "-i", *_assigned(variables), *place, *command]

    def entered(self, *command: str, environment: Mapping[str, str] | None = None) -> list[str]:
        """Return how to run the image with this command, in place of its own where it is not empty."""
        words = self.stage.entrypoint + (list(command) or self.stage.command)
        return self.words(*words, environment=environment)


def can_build() -> bool:
    """Tell whether this process may mount file systems, in a mount namespace of its own."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return False
    return subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True).returncode == 0  # noqa: S607 - util-linux


@contextmanager
def built(place: Path) -> Iterator[Image]:
    """Give the image of the Dockerfile; AssertionError with what the steps said where one fails."""
    context, root = place / "context", place / "roots"
    _make_context(context)
    root.mkdir()
    all_stages = stages({"PATH": _PATH})
    script = place / "build.sh"
    script.write_text(_script(all_stages, context))
    log = place / "build.log"
    environment = os.environ | {
        "PLACE": str(root),
        "PREFIX": sys.base_prefix,
        "PYTHON": os.path.realpath(sys.executable),
    }
    with (
        log.open("wb") as said,
        subprocess.Popen(  # noqa: S603 - the script is made of the Dockerfile
            ["unshare", "--mount", "sh", str(script), all_stages[-1].name],  # noqa: S607 - util-linux
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
        ) as process,
    ):
        assert process.stdout is not None
        assert process.stdout.readline() == b"built\n", log.read_text()[-4000:]
        last = all_stages[-1]
        yield Image(last, root / last.name / "root", process.pid)


def _make_context(context: Path) -> None:
    context.mkdir()
    for name in let_through():
        source = TOP / name
        if source.is_dir():
            shutil.copytree(source, context / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, context / name)


def _script(all_stages: list[Stage], context: Path) -> str:
    lines = [_BASE]
    for stage in all_stages:
        lines.append(f"base {stage.name}")
        lines += [_run(step) if step.instruction == "RUN" else _copy(step, context) for step in stage.steps]
    return "\n".join([*lines, _READY])


def _run(step: Step) -> str:
    outside = {name: text for name, text in os.environ.items() if name.upper().startswith(_FROM_OUTSIDE)}
    # What the set-up has downloaded already is taken from there; the image, which keeps no cache, can't.
    variables = outside | step.environment | {"PIP_NO_CACHE_DIR": "0"}
    words = ["env", "-i", *_assigned(variables), "sh", "-ec"]
    inner = f"mkdir -p {step.folder}; cd {step.folder}; {step.rest}"
    return f"chroot . {shlex.join([*words, inner])} >&2"


def _copy(step: Step, context: Path) -> str:
    *sources, target = step.rest.split()
    origin = shlex.quote(str(context))
    if sources[0].startswith("--from="):
        origin = f'"$PLACE"/{sources.pop(0).partition("=")[2]}/root'
    target = "." + os.path.join(step.folder, target)  # noqa: PTH118 - a path in the root, perhaps with a "/" at the end
    # The contents of a folder are copied, not the folder itself.
    paths = [f"{origin}/{each}" for each in sources]
    copies = [f"cp -a $([ -d {path} ] && echo {path}/. || echo {path}) {target}" for path in paths]
    return "\n".join([f"mkdir -p {target}", *copies])


def _assigned(variables: Mapping[str, str]) -> list[str]:
    return [f"{name}={text}" for name, text in variables.items()]
