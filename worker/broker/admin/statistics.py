"""What RabbitMQ's management API tells of our queues beyond AMQP; its numbers are some seconds old."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from worker.broker.admin.management import NOT_THE_API, ManagementApi, changes_in_force, no_api
from worker.broker.admin.policies import Change
from worker.broker.topology import topology_of
from worker.contract.errors import BrokerAway
from worker.settings import BrokerSettings

_QUEUES = (
    "queues/{}?columns=name,policy,operator_policy,messages_unacknowledged,head_message_timestamp,members,online,"
    "message_stats.publish_details.rate,message_stats.deliver_get_details.rate"
)
_BINDINGS = "bindings/{}?columns=source,destination,routing_key"


@dataclass(frozen=True, slots=True)
class QueueStatistics:
    """What is told of one queue, None where it is not: rates are messages a second, `oldest_at` seconds since 1970.

    `has_leader` is false where so many of its nodes are away that the others can't elect one.
    """

    unacknowledged: int | None = None
    publish_rate: float | None = None
    deliver_rate: float | None = None
    oldest_at: float | None = None
    has_leader: bool = True


@dataclass(frozen=True, slots=True)
class Statistics:
    """Queues by name; where results go, as pairs of a queue or exchange and a routing key; what policies change."""

    queues: Mapping[str, QueueStatistics]
    results_to: tuple[tuple[str, str], ...]
    changes: tuple[Change, ...]


async def statistics_of(settings: BrokerSettings, url: str) -> Statistics:
    """Ask the management API at a URL.

    Raises:
        BrokerAway: it can't be reached, refuses, or is none.
        SettingsError: the certificates can't be used.
    """
    api = ManagementApi(url, settings)
    topology = topology_of(settings)
    try:
        queues = {queue["name"]: queue for queue in await api.get(_QUEUES)}
        bindings = await api.get(_BINDINGS)
        return Statistics(
            {name: queue_statistics(said) for name, said in queues.items()},
            tuple(
                (str(each["destination"]), str(each["routing_key"]))
                for each in bindings
                if each["source"] == topology.results
            ),
            tuple(await changes_in_force(api, topology, queues)),
        )
    except NOT_THE_API as error:
        raise BrokerAway(no_api(error)) from error


def queue_statistics(said: Mapping[str, Any]) -> QueueStatistics:
    """Read what the API says of one queue."""
    rates = said.get("message_stats") or {}
    members, online = said.get("members") or [], said.get("online")
    return QueueStatistics(
        _number(said.get("messages_unacknowledged")),
        _number((rates.get("publish_details") or {}).get("rate")),
        _number((rates.get("deliver_get_details") or {}).get("rate")),
        _number(said.get("head_message_timestamp")),
        has_leader=online is None or len(online) * 2 > len(members) or not members,
    )


def _number(value: Any) -> Any:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
