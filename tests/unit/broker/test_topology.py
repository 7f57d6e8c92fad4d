"""The topology as data: every name, kind and argument of the contract, whatever the settings."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.settings import broker_settings
from worker.broker.topology import Binding, Exchange, Topology, topology_of

URL = "amqp://127.0.0.1/"
KEPT = {"x-queue-type": "quorum", "x-delivery-limit": 1_000_000, "x-overflow": "reject-publish"}


def dead_lettered(exchange: str, key: str) -> dict[str, Any]:
    return {
        "x-queue-type": "quorum",
        "x-dead-letter-exchange": exchange,
        "x-dead-letter-routing-key": key,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }


def arguments(topology: Topology) -> dict[str, dict[str, Any]]:
    return {queue.name: queue.all_arguments for queue in topology.queues}


def test_the_default_topology_is_the_contract_s() -> None:
    """Without any setting there are exactly the contract's queues, with exactly its arguments."""
    assert arguments(topology_of(broker_settings(URL))) == {
        "lcm.outcome.jobs": dead_lettered("lcm.outcome.dead", "dead") | {"x-delivery-limit": 20},
        "lcm.outcome.results": KEPT,
        "lcm.outcome.retry.5s": dead_lettered("lcm.outcome.jobs", "job") | {"x-message-ttl": 5_000},
        "lcm.outcome.retry.30s": dead_lettered("lcm.outcome.jobs", "job") | {"x-message-ttl": 30_000},
        "lcm.outcome.retry.2m": dead_lettered("lcm.outcome.jobs", "job") | {"x-message-ttl": 120_000},
        "lcm.outcome.retry.10m": dead_lettered("lcm.outcome.jobs", "job") | {"x-message-ttl": 600_000},
        "lcm.outcome.dead": KEPT,
        "lcm.outcome.undelivered": KEPT | {"x-max-length": 100_000},
    }


def test_exchanges_and_bindings_are_the_contract_s() -> None:
    """Jobs, retry and dead are direct exchanges, results a topic exchange whose queue takes everything."""
    topology = topology_of(broker_settings(URL, retry_delays=["5s"]))
    assert set(topology.exchanges) == {
        Exchange("lcm.outcome.jobs", "direct"),
        Exchange("lcm.outcome.results", "topic"),
        Exchange("lcm.outcome.retry", "direct"),
        Exchange("lcm.outcome.dead", "direct"),
        Exchange("lcm.outcome.undelivered", "direct"),
    }
    assert set(topology.bindings) == {
        Binding("lcm.outcome.jobs", "lcm.outcome.jobs", "job"),
        Binding("lcm.outcome.results", "lcm.outcome.results", "#"),
        Binding("lcm.outcome.retry", "lcm.outcome.retry.5s", "5s"),
        Binding("lcm.outcome.dead", "lcm.outcome.dead", "dead"),
        Binding("lcm.outcome.undelivered", "lcm.outcome.undelivered", "undelivered"),
    }


@pytest.mark.parametrize(
    ("delay", "name", "ttl"),
    [("120s", "2m", 120_000), ("60", "1m", 60_000), ("1500ms", "1500ms", 1_500), ("250ms", "250ms", 250)],
)
def test_names_of_retry_queues_are_canonical(delay: str, name: str, ttl: int) -> None:
    """However a delay is written, its queue, its key and its TTL are the same."""
    topology = topology_of(broker_settings(URL, retry_delays=[delay]))
    [step] = topology.retry_steps
    assert (step.key, step.delay) == (name, ttl / 1000)
    assert arguments(topology)[f"lcm.outcome.retry.{name}"]["x-message-ttl"] == ttl


def test_everything_is_named_after_the_prefix() -> None:
    """With another prefix nothing is shared with the default installation."""
    topology = topology_of(broker_settings(URL, prefix="acme"))
    names = {entity.name for entity in topology.entities} | {topology.jobs, topology.dead, topology.retry}
    assert {name.partition(".")[0] for name in names} == {"acme"}
    assert {
        argument["x-dead-letter-exchange"]
        for argument in arguments(topology).values()
        if "x-dead-letter-exchange" in argument
    } == {
        "acme.dead",
        "acme.jobs",
    }


def test_without_a_results_queue_the_exchange_stays() -> None:
    """Where consumers bind queues of their own, only the queue and its binding are left out."""
    topology = topology_of(broker_settings(URL, results_queue=False))
    assert "lcm.outcome.results" not in arguments(topology)
    assert "lcm.outcome.results" not in {binding.exchange for binding in topology.bindings}
    assert Exchange("lcm.outcome.results", "topic") in topology.exchanges


def test_the_delivery_limit_is_the_setting_s() -> None:
    """The jobs queue has the limit asked for; the others keep theirs."""
    limits = {
        name: found["x-delivery-limit"]
        for name, found in arguments(topology_of(broker_settings(URL, delivery_limit=7))).items()
        if "x-delivery-limit" in found
    }
    kept = (f"lcm.outcome.{name}" for name in ("results", "dead", "undelivered"))
    assert limits == {"lcm.outcome.jobs": 7, **dict.fromkeys(kept, 1_000_000)}


def test_entities_come_in_an_order_in_which_they_can_be_declared() -> None:
    """An exchange comes before every queue that dead-letters into it, and exists before anything is bound to it."""
    seen: set[str] = set()
    topology = topology_of(broker_settings(URL))
    for entity in topology.entities:
        target = getattr(entity, "arguments", {}).get("x-dead-letter-exchange")
        assert target is None or target in seen
        if isinstance(entity, Exchange):
            seen.add(entity.name)
    assert {binding.exchange for binding in topology.bindings} == seen
