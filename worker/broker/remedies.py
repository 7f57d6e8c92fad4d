"""The remedy for what a broker says when it refuses a connection, a channel or an exchange or queue; pure."""

from __future__ import annotations

import re
from shlex import quote

_USER_LIMITS = (
    "close connections of this user's, or raise its limit: `rabbitmqctl set_user_limits {user} '%s'`"
)
_VHOST_LIMITS = (
    "raise the limit, which replaces its other limits: `rabbitmqctl set_vhost_limits -p {vhost} '%s'`"
)
_CONF = "raise {} in the broker's rabbitmq.conf"
_ENTER = (
    "let the user in: `rabbitmqctl set_permissions -p {vhost} {user} CONFIGURE WRITE READ`, "
    "or see user and virtual host in broker.url"
)
_NO_REPLICA = (
    "a stream is read on nodes that have a replica of it: name those in broker.url, or make one: "
    "`rabbitmq-streams add_replica --vhost {vhost} {queue} NODE`"
)
_LOGIN = (
    "user name or password refused; see broker.url and broker.password_file "
    "(the user guest may come from the broker's own host alone)"
)
# Tried in this order, from the special to the general; what a group finds goes into the remedy, quoted for a shell.
_REMEDIES = {
    r"vhost (?P<vhost>.*) not found": "name a virtual host that exists in broker.url, or make it: "
    "`rabbitmqctl add_vhost {vhost}`",
    r"vhost '(?P<vhost>[^']*)' is down": "see the broker's log, and start the virtual host again: "
    "`rabbitmqctl restart_vhost -p {vhost}`",
    r"user '(?P<user>[^']*)'.*user connection limit": _USER_LIMITS % '{{"max-connections": N}}',
    r"node connection limit": f"close connections, or {_CONF.format('connection_max')}",
    r"vhost '(?P<vhost>[^']*)'.*connection limit .*reached": "close connections to this virtual host, or "
    + _VHOST_LIMITS % '{{"max-connections": N}}',
    r"vhost '(?P<vhost>[^']*)' refused for user '(?P<user>[^']*)'$": _ENTER,
    r"channels opened for user '(?P<user>[^']*)'": _USER_LIMITS % '{{"max-channels": N}}',
    r"channels opened on node": f"close connections, or {_CONF.format('channel_max_per_node')}",
    r"channels opened": f"{_CONF.format('channel_max')}; its default is 2047",
    r"queue limit in vhost '(?P<vhost>[^']*)'": "delete queues that nobody needs, or "
    + _VHOST_LIMITS % '{{"max-queues": N}}',
    r"queue limit in cluster": f"delete queues that nobody needs, or {_CONF.format('cluster_queue_limit')}",
    r"exchange limit": f"delete exchanges that nobody needs, or {_CONF.format('cluster_exchange_limit')}",
    r"queue '(?:queue ')?(?P<queue>[^']*)' in vhost '(?P<vhost>[^']*)'.* not have a .*replica": _NO_REPLICA,
    r"Login was refused": _LOGIN,
}

_PORTS = "15672 is the port of its management, 15692 of its metrics"
NOT_AMQP = (
    f"name RabbitMQ's port for AMQP 0-9-1 in broker.url, usually 5672, or 5671 with amqps:// ({_PORTS})"
)
TLS = "write amqps:// in broker.url, or name the port without TLS, usually 5672"
SILENCE = (
    "see whether broker.url names RabbitMQ's port for AMQP, with amqps:// where it is one for TLS "
    "(which may ask for broker.cert_file), and whether RabbitMQ runs behind any load balancer there"
)
NO_CONFIRMS = (
    "name RabbitMQ 3.10 to 4.x itself in broker.url, or a proxy that leaves out none of its capabilities"
)
AUTHENTICATION = (
    "allow PLAIN in auth_mechanisms of the broker, or add ?auth=external to broker.url where it offers that"
)


def remedy_for(said: str) -> str:
    """Return what to do about these words of the broker's; "" where they are not known here."""
    for words, remedy in _REMEDIES.items():
        if found := re.search(words, said):
            return remedy.format(**{name: quote(value) for name, value in found.groupdict().items()})
    return ""
