"""Asks RabbitMQ's management API what AMQP does not tell: policies, and how many jobs are unacknowledged."""

from __future__ import annotations

import asyncio
import json
import ssl
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from http.client import HTTP_PORT, HTTPS_PORT, BadStatusLine, HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from worker.broker.admin.definitions import vhost_of
from worker.broker.admin.inspect import Finding
from worker.broker.admin.policies import Change, Policy, changes_of, in_force, roles_of
from worker.broker.topology import Topology, topology_of
from worker.common.asking import ask
from worker.common.text import MAX_QUOTE, printable, shortened
from worker.common.text import quote as quoted
from worker.contract.errors import BrokerAway, SettingsError
from worker.settings import BrokerSettings
from worker.settings.tls import client_context
from worker.settings.tls_faults import TlsFaults

_TIMEOUT = 20.0  # for a whole answer: of many queues it takes a while
_MOST_BYTES = 8 * 1024 * 1024  # some 30,000 queues; read as JSON they may take 25 times as much
_PLUGIN = "see --management, and whether the broker has the plugin rabbitmq_management enabled"
_RIGHTS = (
    "name a user in --management (http://USER@HOST, with --management-password-file) who has the tag:"
    " `rabbitmqctl set_user_tags USER management`"
)
_QUEUES = "queues/{}?columns=name,policy,operator_policy,messages_unacknowledged"
NOT_THE_API = (TypeError, KeyError, AttributeError)
_KINDS = {"policy": "policies/{}", "operator_policy": "operator-policies/{}"}


class ManagementApi:
    """The API at a URL such as `http://HOST:15672`, with the credentials of broker.url unless it has its own."""

    def __init__(self, url: str, settings: BrokerSettings) -> None:
        self._parts = urlsplit(url)
        login = self._parts if self._parts.username else urlsplit(settings.urls[0])
        self._credentials = f"{unquote(login.username or 'guest')}:{unquote(login.password or '')}"
        self._settings = settings
        self._base = self._parts.path.rstrip("/").removesuffix("/api")
        self._where = f"{self._parts.scheme}://{self._parts.netloc.rpartition('@')[2]}{self._base}"
        self._vhost = quote(vhost_of(settings.urls[0]), safe="")

    async def get(self, path: str) -> Any:
        """Return what stands at a path below `/api/`, in which `{}` becomes the virtual host.

        Raises:
            BrokerAway: it can't be reached, or refuses; the text has the remedy.
        """
        return await asyncio.to_thread(self._get, f"{self._base}/api/{path.format(self._vhost)}")

    def _get(self, path: str) -> Any:
        token = b64encode(self._credentials.encode()).decode()
        try:
            with closing(self._connection()) as connection:
                headers = {"Authorization": f"Basic {token}"}
                response, body = ask(connection, path, headers=headers, most=_MOST_BYTES)
        except ssl.SSLError as error:
            faults = TlsFaults("broker", self._settings, url="--management", schemes=("http", "https"))
            fault = faults.of(error)
            raise BrokerAway(f"{self._where}: {fault.why}", fault.remedy) from error
        except (OSError, HTTPException, UnicodeError) as error:
            raise BrokerAway(f"{self._where}: {_why(error)}", _PLUGIN) from error
        if response.status in {401, 403}:
            raise BrokerAway(f"{self._where}: HTTP {response.status} {_reason(body)}", _RIGHTS)
        try:
            if response.status == 200:  # noqa: PLR2004 - HTTP's own
                return json.loads(body)
        except (ValueError, RecursionError) as error:
            raise BrokerAway(f"{self._where}: what answers there is no management API", _PLUGIN) from error
        raise BrokerAway(f"{self._where}: HTTP {response.status} {response.reason}", _PLUGIN)

    def _connection(self) -> HTTPConnection:
        host, port = self._parts.hostname or "", self._parts.port
        # With a port always, or the library looks for one in an IPv6 address.
        if self._parts.scheme == "https":
            context = client_context("broker", self._settings)
            return HTTPSConnection(host, port or HTTPS_PORT, timeout=_TIMEOUT, context=context)
        return HTTPConnection(host, port or HTTP_PORT, timeout=_TIMEOUT)


def no_api(error: Exception) -> str:
    """Say that what answers is no management API: reading its JSON ended in one of `NOT_THE_API`."""
    return f"what answers at --management is no management API of RabbitMQ's ({type(error).__name__})"


async def check_policies(settings: BrokerSettings, url: str) -> list[Finding]:
    """Say what policies change about our queues, and how many jobs are unacknowledged; changes nothing."""
    try:
        return await _findings(ManagementApi(url, settings), settings)
    except (BrokerAway, SettingsError) as error:
        return [Finding("away", "policies", str(error))]
    except NOT_THE_API as error:
        return [Finding("away", "policies", no_api(error))]


async def _findings(api: ManagementApi, settings: BrokerSettings) -> list[Finding]:
    queues = {queue["name"]: queue for queue in await api.get(_QUEUES)}
    topology = topology_of(settings)
    found = [told_of(change) for change in await changes_in_force(api, topology, queues)]
    return [
        *(found or [Finding("ok", "policies", "none changes what these queues keep")]),
        _unacknowledged(queues.get(topology.jobs, {}).get("messages_unacknowledged")),
    ]


async def changes_in_force(
    api: ManagementApi, topology: Topology, queues: Mapping[str, Mapping[str, Any]]
) -> list[Change]:
    """Return what policies change about our queues; `queues` is what the API says of each queue, by its name.

    Raises:
        BrokerAway: as `get`.
    """
    policies = {kind: _policies(kind, await api.get(path)) for kind, path in _KINDS.items()}
    roles = roles_of(topology)
    return [
        change
        for queue in topology.queues
        for change in changes_of(
            queue, roles[queue.name], _applied(queue.name, queues.get(queue.name, {}), policies)
        )
    ]


def _unacknowledged(count: int | None) -> Finding:
    what = "unacknowledged jobs"
    if count is None:
        return Finding("unknown", what, "the management API does not tell: has it statistics, and the queue?")
    return Finding("ok", what, f"{count} in the hands of workers")


def _policies(kind: str, listed: Iterable[dict[str, Any]]) -> list[Policy]:
    return [
        Policy(
            kind.replace("_", " "),
            each["name"],
            each["pattern"],
            each.get("apply-to", "all"),
            each.get("priority", 0),
            each["definition"],
        )
        for each in listed
    ]


def _applied(queue: str, said: Mapping[str, Any], policies: Mapping[str, list[Policy]]) -> Iterator[Policy]:
    """Yield the policies in force for a queue, the operator's first."""
    for kind in ("operator_policy", "policy"):
        if policy := in_force(queue, policies[kind], said.get(kind) or ""):
            yield policy


def told_of(change: Change) -> Finding:
    """Say what a policy changes, and what that may lose."""
    sets = f"{change.policy.kind} {change.policy.name!r} sets {change.key} to {change.value}"
    return Finding("warn", f"queue {change.queue}", f"{sets}: {change.means}")


def _why(error: Exception) -> str:
    if isinstance(error, BadStatusLine) and not isinstance(error, OSError):
        return f"what answers there speaks no HTTP: {quoted(str(error))}"
    return getattr(error, "strerror", None) or printable(str(error)) or type(error).__name__


def _reason(body: bytes) -> str:
    try:
        return printable(shortened(str(json.loads(body)["reason"]), MAX_QUOTE))
    except (ValueError, TypeError, KeyError, RecursionError):
        return "refused"
