"""One private RabbitMQ node for the whole run, a vhost of it for each test, and tests that are coroutines."""

import asyncio
import inspect
import sqlite3
from collections.abc import Generator, Iterator
from contextlib import closing
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support.broker import running_broker
from tests.support.patience import PATIENCE
from worker.sandbox.node import Node

_TIMEOUT_S = 60
_numbers = count(1)

# How long an example takes says how busy the machine is.
settings.register_profile("patient", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("faults")
    group.addoption(
        "--faults-full", action="store_true", help="the full form of each fault, not the quick one"
    )
    group.addoption("--seed", type=int, help="of all that the fault tests draw; printed, drawn by default")
    group.addoption("--faults-json", type=Path, help="where to write the figures; default: $FAULTS_JSON")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        f"timeout_s(n): a coroutine test takes n seconds at most, not {_TIMEOUT_S}, were the machine idle",
    )


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtestloop(session: pytest.Session) -> Generator[None, object, object]:
    """Take away what processes that were killed have left of their coverage: half a file would end the whole run."""
    result = yield
    for file in session.config.rootpath.glob(".sandbox/coverage.*"):
        if not _is_whole(file):
            file.unlink()
    return result


def _is_whole(file: Path) -> bool:
    try:
        with closing(sqlite3.connect(file)) as database:
            return bool(database.execute("PRAGMA quick_check").fetchone() == ("ok",))
    except sqlite3.DatabaseError:
        return False


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run an `async def` test in an event loop of its own, and fail it where it hangs."""
    if not inspect.iscoroutinefunction(pyfuncitem.function):
        return None
    marker = pyfuncitem.get_closest_marker("timeout_s")
    wanted = inspect.signature(pyfuncitem.function).parameters
    test = pyfuncitem.function(**{name: pyfuncitem.funcargs[name] for name in wanted})
    limit = marker.args[0] if marker else _TIMEOUT_S
    asyncio.run(asyncio.wait_for(test, PATIENCE * limit))
    return True


@pytest.fixture(scope="session")
def broker() -> Iterator[Node]:
    """Give the node that all tests of the run share: leave it running, without an alarm."""
    with running_broker(Node()) as node:
        yield node


@pytest.fixture
def vhost(broker: Node) -> Iterator[str]:
    """Give the AMQP URL of an empty vhost that no other test uses, and that goes with the test."""
    name = f"test-{next(_numbers)}"
    yield asyncio.run(broker.add_vhost(name))
    asyncio.run(broker.remove_vhost(name))
