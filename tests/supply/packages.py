"""The packages of a lock, those that are installed, and what sets them apart."""

from __future__ import annotations

import re
import sysconfig
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import Distribution, distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

TOP = Path(__file__).parents[2]
PROJECT = "lcm-outcome-worker"
_PACKAGE = re.compile(r"^([\w.-]+==[^\\\n]*?) *((?:\\\n +--hash=sha256:[0-9a-f]{64} *)+)$", re.MULTILINE)


@dataclass(frozen=True)
class Locked:
    """One package of a lock: its version, and the SHA-256 of each file that it may be installed from."""

    version: str
    hashes: tuple[str, ...]


def locked(lock: str) -> dict[str, Locked]:
    """Return the packages, by normalized name, that a lock holds for a machine such as this one."""
    found: dict[str, Locked] = {}
    for pin, hashes in _PACKAGE.findall(lock):
        requirement = Requirement(pin)
        if requirement.marker is None or requirement.marker.evaluate():
            (version,) = requirement.specifier
            found[canonicalize_name(requirement.name)] = Locked(
                version.version, tuple(re.findall(r"sha256:(\w+)", hashes))
            )
    return found


def installed(folder: str = sysconfig.get_path("purelib")) -> dict[str, Distribution]:
    """Return what is installed in a folder, by default that of this environment, by normalized name."""
    return {canonicalize_name(each.name): each for each in distributions(path=[folder])}


def needed(present: Mapping[str, Distribution], root: str = PROJECT) -> dict[str, set[str]]:
    """Return the package `root` and all that it needs, each with what it needs itself."""
    found: dict[str, set[str]] = {}
    to_see = [root]
    while to_see:
        if (name := to_see.pop()) not in found:
            requirements = map(Requirement, present[name].requires or ())
            found[name] = {
                canonicalize_name(each.name)
                for each in requirements
                if each.marker is None or each.marker.evaluate({"extra": ""})
            }
            to_see += found[name]
    return found


def differences(lock: Mapping[str, Locked], present: Mapping[str, str]) -> Iterator[str]:
    """Yield in what an environment, given by names and versions, is not what a lock says.

    Beyond the lock there may be the project itself, and the pip and setuptools that a virtual environment begins with.
    """
    for name in sorted(lock.keys() | present.keys()):
        if name not in present:
            yield f"{name} is missing"
        elif name in lock and present[name] != lock[name].version:
            yield f"{name} is {present[name]}, not {lock[name].version}"
        elif name not in lock and name not in {PROJECT, "pip", "setuptools"}:
            yield f"{name} is not in the lock"


def altered(distribution: Distribution) -> Iterator[str]:
    """Yield each file of an installed package that is not what its wheel's RECORD says."""
    for file in distribution.files or ():
        if file.hash is None:
            continue  # the RECORD itself, and what was compiled later
        path = Path(str(distribution.locate_file(file)))
        content = path.read_bytes() if path.is_file() else b""
        if urlsafe_b64encode(sha256(content).digest()).rstrip(b"=").decode() != file.hash.value:
            yield str(file)
