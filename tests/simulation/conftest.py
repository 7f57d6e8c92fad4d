"""How many schedules to run, and from which seed on."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

_SCHEDULES = 3_000
_SEEDS = 2**40


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("simulation")
    group.addoption(
        "--schedules", type=int, default=_SCHEDULES, help="how many to run; %(default)s by default"
    )
    group.addoption("--simulation-seed", type=int, help="run the schedule of this seed alone, and print it")
    group.addoption("--first-seed", type=int, help="of the schedules; printed, drawn by default")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("first_seed", None) is None:
        config.option.first_seed = random.randrange(_SEEDS)  # noqa: S311 - no secret


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    terminalreporter.write_line(f"simulation: reproduce with --first-seed {config.option.first_seed}")


@pytest.fixture(scope="session")
def chosen_seed(request: pytest.FixtureRequest) -> int | None:
    """Give the one seed that is to be replayed, if there is one."""
    chosen: int | None = request.config.getoption("simulation_seed", None)
    return chosen


@pytest.fixture(scope="session")
def seeds(request: pytest.FixtureRequest, chosen_seed: int | None) -> Sequence[int]:
    """Give the seeds of this run's schedules."""
    first = request.config.option.first_seed
    if chosen_seed is not None:
        return [chosen_seed]
    return range(first, first + request.config.getoption("schedules", _SCHEDULES))
