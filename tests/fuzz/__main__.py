"""`make fuzz`: looks for inputs for which the properties of the targets do not hold."""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from random import Random

from tests.fuzz.loop import Found, Loop
from tests.fuzz.target import Target
from tests.fuzz.targets import TARGETS

FAILURES = Path(".sandbox/fuzz")
_SEEDS = 2**32


def options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("--target", choices=TARGETS, help="this one alone; all of them by default")
    parser.add_argument("--seconds", type=float, default=20, help="for each target: %(default)g")
    parser.add_argument("--seed", type=int, help="of the changes; printed, drawn by default")
    parser.add_argument("--keep", action="store_true", help="add what reached something new to the corpus")
    parser.add_argument(
        "--replay", type=Path, metavar="FILE", help="give this input to the target, and no other"
    )
    given = parser.parse_args(arguments)
    if given.replay and not given.target:
        parser.error("--replay needs the --target to give the file to")
    return given


def fuzz(target: Target, seconds: float, seed: int, *, keep: bool) -> bool:
    """Fuzz one target and tell what that came to; return whether its property held."""
    end = time.monotonic() + seconds
    loop = Loop(target, target.seeds(), Random(seed))  # noqa: S311 - no secret
    found = loop.run(lambda _: time.monotonic() < end)
    _tell(
        f"{target.name}: {found.executions:,} executions, {found.steps} steps, corpus of {len(target.seeds())}"
        f" + {len(found.kept)}, slowest {found.slowest * 1000:.0f} ms, seed {seed}"
    )
    if keep:
        for data in found.kept:
            (target.corpus / _name(data)).write_bytes(data)
    if found.failure is not None:
        _tell_failure(target, found)
    return found.failure is None


def _tell_failure(target: Target, found: Found) -> None:
    FAILURES.mkdir(parents=True, exist_ok=True)
    file = FAILURES / f"{target.name}-{_name(found.failing)}"
    file.write_bytes(found.failing)
    _tell("".join(traceback.format_exception(found.failure)))
    _tell(f'replay it with: make fuzz ARGS="--target {target.name} --replay {file}"')


def _name(data: bytes) -> str:
    return sha256(data).hexdigest()[:12]


def _tell(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(arguments: Sequence[str]) -> int:
    """Do as the arguments say; return 1 where a property did not hold."""
    given = options(arguments)
    if given.replay:
        TARGETS[given.target].check(given.replay.read_bytes())
        _tell(f"{given.target}: the property holds for {given.replay}")
        return 0
    seed = given.seed if given.seed is not None else Random().randrange(_SEEDS)  # noqa: S311 - no secret
    chosen = [TARGETS[given.target]] if given.target else list(TARGETS.values())
    held = [fuzz(target, given.seconds, seed, keep=given.keep) for target in chosen]
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
