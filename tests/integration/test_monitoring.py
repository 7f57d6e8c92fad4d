"""The alerts and dashboards ask RabbitMQ's own plugin for nothing that it does not tell of our queues."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http.client import HTTPConnection
from urllib.parse import urlencode

import yaml

from tests.support.channel import open_channel
from tests.support.monitoring import PROMETHEUS, alert_queries, dashboard_queries, known_from, mistakes
from tests.support.settings import broker_settings
from tests.support.waiting import until
from worker.broker.declare import declare
from worker.broker.topology import topology_of
from worker.sandbox.folder import free_port
from worker.sandbox.node import Node


@asynccontextmanager
async def plugin() -> AsyncIterator[tuple[Node, int]]:
    """Give a node with its Prometheus plugin, and the port of that."""
    async with Node() as node:
        port = free_port()
        enabled = node.folder / "enabled_plugins"
        enabled.write_text("[rabbitmq_prometheus].\n")
        await node.eval(
            "begin rabbit:await_startup(), application:load(rabbitmq_prometheus), "
            f'Tcp = [{{ip, "127.0.0.1"}}, {{port, {port}}}], '
            "ok = application:set_env(rabbitmq_prometheus, tcp_config, Tcp, [{persistent, true}]), "
            f'{{ok, _, _}} = rabbit_plugins:ensure("{enabled}") end'
        )
        yield node, port


async def scraped(port: int) -> str:
    """Return what Prometheus is told where it asks as its configuration says."""
    [job] = [
        job
        for job in yaml.safe_load(PROMETHEUS.read_text())["scrape_configs"]
        if job["job_name"] == "rabbitmq"
    ]

    def ask() -> str:
        connection = HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            connection.request("GET", f"{job['metrics_path']}?{urlencode(job['params'], doseq=True)}")
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    return await asyncio.to_thread(ask)


async def test_queries_ask_for_metrics_that_rabbitmq_has() -> None:
    """Each of the plugin's metrics that is asked for exists, and so do the queues of our names."""
    async with plugin() as (node, port), open_channel(node.url) as channel:
        topology = topology_of(broker_settings(node.url))
        await declare(channel, topology)

        async def tells_of_all() -> bool:
            told = known_from(await scraped(port)).get("rabbitmq_detailed_queue_consumers", {})
            return {queue.name for queue in topology.queues} <= told.get("queue", set())

        await until(tells_of_all)
        known = known_from(await scraped(port))
        asked = alert_queries() + dashboard_queries("metrics")
        queries = [query for query in asked if "rabbitmq_" in query.text]
        assert len(queries) > 5
        assert [wrong for query in queries for wrong in mistakes(query, known, "rabbitmq")] == []
