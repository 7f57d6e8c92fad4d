"""What the tests under faults share: how far to go, the seed, the figures, and a cluster."""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.rig.cluster import Cluster
from tests.faults.rig.report import Report
from tests.support.broker import running_broker

_SEEDS = 2**32


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("seed", None) is None:
        config.option.seed = random.randrange(_SEEDS)  # noqa: S311 - no secret


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    terminalreporter.write_line(f"faults: reproduce with --seed {config.option.seed}")


@pytest.fixture(scope="session")
def full(request: pytest.FixtureRequest) -> bool:
    """Tell whether the full form of each fault is asked for."""
    return bool(request.config.getoption("faults_full", False))


@pytest.fixture(scope="session")
def seed(request: pytest.FixtureRequest) -> int:
    """Give the seed of this run."""
    return int(request.config.option.seed)


@pytest.fixture(scope="session")
def faults(request: pytest.FixtureRequest, seed: int) -> Report:
    """Give the report that each row goes into, by `with faults.row("7", "test_name") as row:`."""
    named = request.config.getoption("faults_json", None) or os.environ.get("FAULTS_JSON")
    return Report(Path(named) if named else None, seed)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Give the three nodes that all tests of the run share: leave them all running."""
    with running_broker(Cluster()) as nodes:
        yield nodes
