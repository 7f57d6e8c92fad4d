"""The document: which message goes where, with the names in force.

AsyncAPI 3 tells operations from the side of the application that is described: the worker receives jobs and sends
results. A channel is either a routing key of an exchange, for whoever publishes or binds, or a queue, for whoever
consumes. The retry queues are left out: they are the workers' own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote, urlsplit

import msgspec

from worker import __version__
from worker.asyncapi.examples import dead_example, failed_example, job_examples, succeeded_example
from worker.asyncapi.schemas import ROUTE_PATTERN, dead_headers, ref, schemas, trace_headers
from worker.broker.admin.definitions import vhost_of
from worker.broker.topology import DEAD_KEY, JOB_KEY, UNDELIVERED_KEY, Topology, topology_of
from worker.contract.result import APP_ID, CONTENT_TYPE, MESSAGE_TYPE
from worker.settings import BrokerSettings

_BINDING = {"bindingVersion": "0.3.0"}
_PORTS = {"amqp": 5672, "amqps": 5671}
_RESULTS = ("succeeded", "failed")

Object = dict[str, Any]


def document_of(settings: BrokerSettings) -> Object:
    """Return the document as plain data: nothing in it but dicts, lists, texts, numbers and booleans."""
    topology = topology_of(settings)
    document = {
        "asyncapi": "3.0.0",
        "info": {
            "title": APP_ID,
            "version": __version__,
            "description": "Jobs name an account; the worker asks LCM for its telephony outcomes and publishes a "
            "result. Delivery is at least once, in any order: a repeat carries the same AMQP message_id, drop it "
            "by that. Every job ends in one result, succeeded or failed.",
            "license": {"name": "MIT"},
        },
        "defaultContentType": CONTENT_TYPE,
        "servers": dict(_servers(settings)),
        "channels": _channels(settings, topology),
        "operations": _operations(replies=bool(settings.reply_to_prefixes)),
        "components": {
            "messages": _messages(),
            "schemas": schemas(),
            "securitySchemes": {"password": {"type": "userPassword"}},
        },
    }
    # Copied, so that no two places share an object: YAML would write the second as a reference to the first.
    plain: Object = msgspec.json.decode(msgspec.json.encode(document))
    return plain


def _servers(settings: BrokerSettings) -> list[tuple[str, Object]]:
    servers = []
    for number, url in enumerate(settings.urls, start=1):
        parts = urlsplit(url)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        server = {
            "host": f"{host}:{parts.port or _PORTS[parts.scheme]}",
            "pathname": f"/{quote(vhost_of(url), safe='')}",
            "protocol": parts.scheme,
            "protocolVersion": "0-9-1",
            "description": "RabbitMQ; the path is the virtual host.",
            "security": [{"$ref": "#/components/securitySchemes/password"}],
        }
        servers.append((f"rabbitmq{number if number > 1 else ''}", server))
    return servers


def _channels(settings: BrokerSettings, topology: Topology) -> Object:
    vhost = vhost_of(settings.urls[0])
    kinds = {exchange.name: exchange.kind for exchange in topology.exchanges}

    def keyed(exchange: str, key: str, messages: Sequence[str], description: str) -> Object:
        durable = {"durable": True, "autoDelete": False, "vhost": vhost}
        bound = {"is": "routingKey", "exchange": {"name": exchange, "type": kinds[exchange], **durable}}
        return _channel(key, messages, description) | {"bindings": {"amqp": bound | _BINDING}}

    def queued(queue: str, messages: Sequence[str], description: str) -> Object:
        durable = {"durable": True, "exclusive": False, "autoDelete": False, "vhost": vhost}
        bound = {"is": "queue", "queue": {"name": queue, **durable}}
        return _channel(queue, messages, description) | {"bindings": {"amqp": bound | _BINDING}}

    channels = {
        "jobs": keyed(topology.jobs, JOB_KEY, ["job"], "Where producers publish jobs."),
        "jobsQueue": queued(
            topology.jobs,
            ["job"],
            "Where jobs wait for a worker: a quorum queue, which the default exchange reaches by its name.",
        ),
    }
    for status in _RESULTS:
        key = f"result.{status}"
        channels[status] = keyed(
            topology.results, key, [status], f"{status.capitalize()} results of jobs without a route."
        )
        channels[f"{status}OfRoute"] = keyed(
            topology.results,
            f"{key}.{{route}}",
            [status],
            f"{status.capitalize()} results of jobs with a route. Bind {key}.# for those with and without.",
        ) | {
            "parameters": {"route": {"description": f"The job's own `route`, of the pattern {ROUTE_PATTERN}"}}
        }
    if settings.results_queue:
        channels["resultsQueue"] = queued(
            topology.results,
            _RESULTS,
            "Keeps every result until somebody takes it: a quorum queue, bound with #.",
        )
    channels["deadLetters"] = keyed(
        topology.dead, DEAD_KEY, ["deadLetter"], "Where failed jobs go, unless they had expired."
    )
    channels["deadLettersQueue"] = queued(
        topology.dead,
        ["deadLetter"],
        "Failed jobs, for an operator: a quorum queue without a time limit. What RabbitMQ itself puts there (a job "
        f"that came back more than {settings.delivery_limit} times, or one with an AMQP expiration) has its x-death "
        "headers in place of the worker's.",
    )
    channels["undelivered"] = keyed(
        topology.undelivered, UNDELIVERED_KEY, _RESULTS, "Where a worker parks results that no queue takes."
    )
    channels["undeliveredQueue"] = queued(
        topology.undelivered,
        _RESULTS,
        "Results that no queue took, each with its routing key in the header outcome-routing-key: a quorum queue of at "
        f"most {settings.undelivered_limit} messages. The workers send them again.",
    )
    if settings.reply_to_prefixes:
        channels["replies"] = _channel(None, _RESULTS, "The queue that a job names in its AMQP reply_to.")
    return channels


def _channel(address: str | None, messages: Sequence[str], description: str) -> Object:
    return {
        "address": address,
        "description": description,
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
    }


def _operations(*, replies: bool) -> Object:
    operations = {
        "receiveJob": {
            "action": "receive",
            "channel": {"$ref": "#/channels/jobs"},
            "summary": "Take a job.",
            "description": "It is acknowledged once the broker has confirmed what takes its place.",
            "messages": [{"$ref": "#/channels/jobs/messages/job"}],
            "bindings": {"amqp": {"ack": True} | _BINDING},
        }
    }
    if replies:
        operations["receiveJob"]["reply"] = {
            "address": {
                "location": "$message.header#/reply_to",
                "description": "The AMQP property reply_to, where it begins with one of broker.reply_to_prefixes. "
                "Best effort, after the result itself was confirmed.",
            },
            "channel": {"$ref": "#/channels/replies"},
            "messages": [{"$ref": f"#/channels/replies/messages/{status}"} for status in _RESULTS],
        }
    for status in _RESULTS:
        for channel in (status, f"{status}OfRoute"):
            name = f"send{channel[0].upper()}{channel[1:]}"
            operations[name] = _send(channel, status, f"Publish a {status} result.", timestamp=True)
    operations["sendDeadLetter"] = _send(
        "deadLetters", "deadLetter", "Keep a job that failed; its failed result follows."
    )
    return operations


def _send(channel: str, message: str, summary: str, **binding: bool) -> Object:
    return {
        "action": "send",
        "channel": {"$ref": f"#/channels/{channel}"},
        "summary": summary,
        "messages": [{"$ref": f"#/channels/{channel}/messages/{message}"}],
        "bindings": {"amqp": {"deliveryMode": 2, "mandatory": True, **binding} | _BINDING},
    }


def _messages() -> Object:
    result = {
        "contentType": CONTENT_TYPE,
        "headers": trace_headers(),
        "correlationId": {
            "location": "$message.header#/correlation_id",
            "description": "The AMQP property correlation_id: the job's, or its id where it had none.",
        },
        "description": f"AMQP properties: app_id is {APP_ID}; message_id is derived from job id, account number, "
        "status and replay count, so that a repeat has the same one; timestamp is when it was made.",
        "bindings": {"amqp": {"messageType": MESSAGE_TYPE} | _BINDING},
    }
    return {
        "job": {
            "title": "Job",
            "summary": "One account to ask LCM about.",
            "description": "AMQP properties: message_id names the job where the body has no job_id; correlation_id "
            "is carried over to the result; with a timestamp the log tells how long the job has waited.",
            "contentType": CONTENT_TYPE,
            "headers": trace_headers(),
            "payload": ref("Job"),
            "correlationId": {
                "location": "$message.header#/correlation_id",
                "description": "The AMQP property correlation_id.",
            },
            "bindings": {"amqp": _BINDING},
            "examples": job_examples(),
        },
        "succeeded": {
            "title": "Succeeded result",
            "summary": "The outcomes of an account.",
            **result,
            "payload": ref("Succeeded"),
            "examples": [succeeded_example()],
        },
        "failed": {
            "title": "Failed result",
            "summary": "Why a job has no outcomes.",
            **result,
            "payload": ref("Failed"),
            "examples": [failed_example()],
        },
        "deadLetter": {
            "title": "Dead letter",
            "summary": "A job that failed, byte for byte.",
            "description": "It has the job's own AMQP properties, but for expiration and user_id.",
            "headers": dead_headers(),
            "payload": {
                "description": "The job's body. Where the error code is invalid_job it may be anything, even no JSON."
            },
            "bindings": {"amqp": _BINDING},
            "examples": [dead_example()],
        },
    }
