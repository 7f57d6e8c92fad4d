"""The topology as a RabbitMQ definitions document, with a user for each part and no more rights than it needs.

RabbitMQ matches permissions as regular expressions against names, and an exchange and a queue of one name are one to
it. So what a permission allows is wider than what it is meant for, as far as names are shared:

- worker (`broker.declare = "passive"`): reads the jobs queue; writes to the exchanges of results, retries and dead
  letters; to the default exchange as well where `broker.reply_to_prefixes` admits callers. It configures nothing: a
  passive declare needs no permission, and dead-lettering none once the queue stands.
- producer: writes to the jobs exchange. The default exchange would open every queue of the virtual host to it.
- consumer: reads the results queue, and the results exchange, which it may bind queues of its own to. Those are named
  `<prefix>.results.<anything>`, and it may do everything with them.

Whoever may read a queue may also purge it: RabbitMQ knows no finer right.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from worker.broker.topology import Topology

_NOTHING = "^$"
_DEFAULT_EXCHANGE = "amq.default"  # what permissions call the exchange without a name


@dataclass(frozen=True, slots=True)
class Users:
    """The names of the three users."""

    worker: str = "lcm-outcome-worker"
    producer: str = "lcm-outcome-producer"
    consumer: str = "lcm-outcome-consumer"

    @property
    def all(self) -> tuple[str, str, str]:
        return (self.worker, self.producer, self.consumer)


def vhost_of(url: str) -> str:
    """Return the virtual host that an AMQP URL names, `/` where it names none."""
    return unquote(urlsplit(url).path[1:]) or "/"


def definitions_of(
    topology: Topology, *, vhost: str, users: Users, replies: bool, accounts: bool = True
) -> dict[str, list[dict[str, Any]]]:
    """Return the document that `rabbitmqctl import_definitions` and `load_definitions` take, from 3.10 on.

    Its users have no password: with an empty hash RabbitMQ lets nobody in until `rabbitmqctl change_password`, and
    takes an existing user's password away. So without `accounts` it has the permissions alone, for users that exist.
    With `replies` the worker may publish to the default exchange.
    """
    there = {"vhost": vhost}
    lasting = {"durable": True, "auto_delete": False}
    return {
        "vhosts": [{"name": vhost}],
        "users": [_user(name) for name in users.all] if accounts else [],
        "permissions": [
            {"user": name, **there, **rights}
            for name, rights in zip(users.all, _rights(topology, replies=replies), strict=True)
        ],
        "exchanges": [
            {"name": each.name, **there, "type": each.kind, **lasting, "internal": False, "arguments": {}}
            for each in topology.exchanges
        ],
        "queues": [
            {"name": each.name, **there, **lasting, "arguments": each.all_arguments}
            for each in topology.queues
        ],
        "bindings": [
            {
                "source": each.exchange,
                **there,
                "destination": each.queue,
                "destination_type": "queue",
                "routing_key": each.key,
                "arguments": {},
            }
            for each in topology.bindings
        ],
    }


def _user(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "password_hash": "",
        "hashing_algorithm": "rabbit_password_hashing_sha256",
        "tags": [],
    }


def _rights(topology: Topology, *, replies: bool) -> tuple[Mapping[str, str], ...]:
    """Return the permissions of worker, producer and consumer."""
    targets = (topology.results, topology.retry, topology.dead, *((_DEFAULT_EXCHANGE,) if replies else ()))
    own = rf"{re.escape(topology.results)}\..+"
    return (
        {"configure": _NOTHING, "write": _exactly(*targets), "read": _exactly(topology.jobs)},
        {"configure": _NOTHING, "write": _exactly(topology.jobs), "read": _NOTHING},
        {
            "configure": f"^{own}$",
            "write": f"^{own}$",
            "read": rf"^{re.escape(topology.results)}(\..+)?$",
        },
    )


def _exactly(*names: str) -> str:
    pattern = "|".join(map(re.escape, names))
    return f"^({pattern})$" if len(names) > 1 else f"^{pattern}$"
