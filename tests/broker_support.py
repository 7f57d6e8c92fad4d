"""A private broker that runs for as long as a fixture gives it out."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import pytest

from tests.faults.rig.cluster import Cluster
from worker.sandbox.rabbitmq import Node, ServerMissing

_Broker = TypeVar("_Broker", Node, Cluster)


@contextmanager
def running_broker(broker: _Broker) -> Iterator[_Broker]:
    """Start it, and stop it at the end; where no server is installed, end the run by saying what to install."""
    try:
        asyncio.run(broker.start())
        yield broker
    except ServerMissing as missing:
        pytest.exit(str(missing), returncode=1)
    finally:
        asyncio.run(broker.stop())
