"""The container image does what compose has it do, on a read-only root and as nobody; built without an engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from packaging.utils import canonicalize_name

from tests.integration.observability.test_http import free_address
from tests.supply.packages import PROJECT, TOP, differences, locked
from tests.support.channel import open_channel
from tests.support.commands import Ended, ending, environment, program
from tests.support.compose import services
from tests.support.image import Image, built, can_build
from tests.support.in_process import all_good, numbered, publish, results
from tests.support.waiting import until
from worker import __version__

# Where they can't be run, an engine can: CI runs what `make image` builds.
pytestmark = pytest.mark.skipif(not can_build(), reason="only root on Linux may mount what these need")
_PACKAGES = (
    "from importlib.metadata import distributions as d; print(*(f'{p.name}=={p.version}' for p in d()))"
)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    """Give the image, built once for all these tests."""
    with built(tmp_path_factory.mktemp("image")) as made:
        yield made


async def said(words: list[str]) -> str:
    """Return what a command in the image prints, which has to succeed."""
    ended: Ended = await program(*words)
    assert ended.status == 0, ended.err
    return ended.out


async def test_the_image_holds_the_worker_and_what_the_lock_says(image: Image) -> None:
    """Its packages are those of the lock and the worker, and nothing to install or build with is left."""
    listed = (await said(image.words("python", "-c", _PACKAGES))).split()
    pairs = (each.partition("==") for each in listed)
    packages: dict[str, str] = {canonicalize_name(name): version for name, _, version in pairs}
    lock = locked((TOP / "requirements.lock").read_text())
    del lock["flit-core"]
    assert packages[PROJECT] == __version__
    assert list(differences(lock, packages)) == []
    assert "pip" not in packages
    assert await said(image.entered("--version")) == f"lcm-worker {__version__}\n"


async def test_the_image_runs_as_nobody_who_can_write_nothing(image: Image) -> None:
    """By default it works until it is told to stop; what it runs has the image's user, and /tmp alone to write to."""
    assert image.stage.command == ["run"]
    writing = "for each in / /opt/lcm-worker /tmp; do touch $each/made 2>&1 && echo $each; done; id -u; id -g"
    refused, *left = (await said(image.words("sh", "-c", writing))).splitlines()
    assert "Read-only file system" in refused
    assert left[1:] == ["/tmp", *image.stage.user.split(":")]  # noqa: S108 - the path in the container


@pytest.mark.timeout_s(120)
async def test_the_services_of_compose_work_and_are_healthy(image: Image, vhost: str) -> None:
    """Simulator and worker run by their commands and variables, their health checks agree, and a job is done."""
    lcm, worker = (services()[name] for name in ("lcm", "worker"))
    address, health = free_address(), free_address()
    given = worker["environment"] | {
        "LCM_WORKER_BROKER__URL": vhost,
        "LCM_WORKER_LCM__URL": worker["environment"]["LCM_WORKER_LCM__URL"].replace("lcm:8765", address),
        "LCM_WORKER_HEALTH__LISTEN": health,
    }
    port = address.partition(":")[2]
    simulate, asked = (words_at(port, words) for words in (lcm["command"], check_of(lcm)))
    async with container(image, simulate, {}), container(image, [], given) as process:
        await until(lambda: succeeds(image.words(*asked)))
        await until(lambda: succeeds(image.words(*check_of(worker), environment=given)))
        assert process.stderr is not None
        async for line in process.stderr:
            if msgspec.json.decode(line)["event"] == "worker.ready":
                break
        async with open_channel(vhost) as channel:
            await publish(channel, *numbered(1))
            all_good(await results(channel, 1), 1)


def words_at(port: str, words: list[str]) -> list[str]:
    """Return a command of the simulator's service for another port."""
    return [word.replace("8765", port) for word in words]


def check_of(service: dict[str, Any]) -> list[str]:
    """Return the command of a health check, which runs without a shell."""
    kind, *words = map(str, service["healthcheck"]["test"])
    assert kind == "CMD"
    return words


async def succeeds(words: list[str]) -> bool:
    return (await program(*words)).status == 0


@asynccontextmanager
async def container(
    image: Image, command: list[str], variables: dict[str, str]
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Give a process of the image that runs beside the test."""
    process = await asyncio.create_subprocess_exec(
        *image.entered(*command, environment=variables),
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env=environment({}),
    )
    async with ending(process):
        yield process
