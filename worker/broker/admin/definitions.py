"""The topology as a RabbitMQ definitions document, with users for workers, producers and consumers.

The users have the least permissions that work. RabbitMQ matches permissions as regular expressions against names, and
does not distinguish an exchange from a queue of the same name, so that a permission covers both:

- worker (`broker.declare = "passive"`): reads the jobs queue; writes to the exchanges of results, retries and dead
  letters, and to the default exchange where `broker.reply_to_prefixes` admits callers; writes and reads the workers'
  beats where there are any. It configures nothing: a passive declare needs no permission, nor does dead-lettering once
  the queue exists.
- producer: writes to the jobs exchange. Writing to the default exchange would let it into every queue of the vhost.
- consumer: reads the results queue and the results exchange, to which it may bind queues of its own. Those are named
  `<prefix>.results.<anything>`, and it has all permissions on them.

The permission to read a queue includes purging it; RabbitMQ has no finer one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from worker.broker.topology import Topology

_NOTHING = "^$"
_DEFAULT_EXCHANGE = "amq.default"  # the name of the default exchange in permissions


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
    """Return a document for `rabbitmqctl import_definitions` and `load_definitions`, from RabbitMQ 3.10 on.

    Its users have an empty password hash: they can't log in until `rabbitmqctl change_password`, and an import removes
    the password of an existing user.

    Args:
        topology: the exchanges, queues and bindings.
        vhost: the virtual host.
        users: the names of the users.
        replies: let the worker publish to the default exchange.
        accounts: create the users; else they have to exist, and get permissions only.
    """
    in_vhost = {"vhost": vhost}
    durable = {"durable": True, "auto_delete": False}
    return {
        "vhosts": [{"name": vhost}],
        "users": [_user(name) for name in users.all] if accounts else [],
        "permissions": [
            {"user": name, **in_vhost, **rights}
            for name, rights in zip(users.all, _rights(topology, replies=replies), strict=True)
        ],
        "exchanges": [
            {"name": each.name, **in_vhost, "type": each.kind, **durable, "internal": False, "arguments": {}}
            for each in topology.exchanges
        ],
        "queues": [
            {"name": each.name, **in_vhost, **durable, "arguments": each.all_arguments}
            for each in topology.queues
        ],
        "bindings": [
            {
                "source": each.exchange,
                **in_vhost,
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
    default = (_DEFAULT_EXCHANGE,) if replies else ()
    beats = tuple(queue.name for queue in topology.queues if queue.name == topology.fleet)
    targets = (topology.results, topology.retry, topology.dead, topology.undelivered, *beats, *default)
    own = rf"{re.escape(topology.results)}\..+"
    return (
        {
            "configure": _NOTHING,
            "write": _exactly(*targets),
            "read": _exactly(topology.jobs, topology.undelivered, *beats),
        },
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
