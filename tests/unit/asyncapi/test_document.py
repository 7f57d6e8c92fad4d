"""The AsyncAPI document: valid by its own schema, true to the code, and without any secret."""

from __future__ import annotations

import inspect
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
import yaml
from typer.testing import CliRunner

from tests.support.settings import broker_settings
from worker.asyncapi import document_of
from worker.broker.topology import topology_of
from worker.cli import app
from worker.contract import errors, outcomes, result
from worker.contract import job_copies as copies
from worker.contract.job_reader import read_job
from worker.contract.lookup import LookupResult
from worker.contract.message import Properties
from worker.settings import BrokerSettings

TOP = Path(__file__).parents[3]
URL = "amqp://me:s3cret@mq/"
NOW = datetime(2026, 1, 31, 12, 0, 0, 0, UTC)
SETTINGS: dict[str, BrokerSettings] = {
    "default": BrokerSettings(),
    "no results queue": broker_settings(URL, results_queue=False, prefix="x"),
    "callers": broker_settings(URL, reply_to_prefixes=["callers."]),
    "cluster": broker_settings("amqps://me:s3cret@a/prod", "amqps://me:s3cret@[::1]:5699/prod"),
}


@pytest.fixture(scope="module")
def rules() -> dict[str, Any]:
    """Give the published JSON schema of AsyncAPI 3.0.0 documents."""
    loaded: dict[str, Any] = msgspec.json.decode((TOP / "tests/data/asyncapi-3.0.0.json").read_bytes())
    return loaded


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """Give the document of the default settings."""
    return document_of(BrokerSettings())


def printed(*arguments: str, **environment: str) -> str:
    ended = CliRunner().invoke(app, ["asyncapi", *arguments], env={"LCM_WORKER_CONFIG": None, **environment})
    assert ended.exit_code == 0, ended.output
    return ended.stdout


def body_schema(document: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the schema of a body, with those that it refers to."""
    return {**document["components"]["schemas"][name], "components": document["components"]}


def is_valid(document: dict[str, Any], name: str, value: object) -> bool:
    return jsonschema.Draft7Validator(body_schema(document, name)).is_valid(value)


def resolved(document: dict[str, Any], pointer: str) -> dict[str, Any]:
    found: Any = document
    for part in pointer.removeprefix("#/").split("/"):
        found = found[part]
    assert isinstance(found, dict)
    return resolved(document, found["$ref"]) if "$ref" in found else found


def references(value: object) -> list[str]:
    if isinstance(value, dict):
        here = [value["$ref"]] if "$ref" in value else []
        return here + [found for each in value.values() for found in references(each)]
    return [found for each in value for found in references(each)] if isinstance(value, list) else []


@pytest.mark.parametrize("name", SETTINGS)
def test_the_document_is_valid(rules: dict[str, Any], name: str) -> None:
    """Whatever the settings, the published schema of AsyncAPI 3.0.0 accepts it, AMQP bindings and all."""
    jsonschema.Draft7Validator(rules).validate(document_of(SETTINGS[name]))


def test_a_wrong_document_is_not_valid(rules: dict[str, Any], document: dict[str, Any]) -> None:
    """The published schema notices a wrong AMQP binding and an operation without its channel, so it can fail."""
    checker = jsonschema.Draft7Validator(rules)
    wrong = msgspec.json.decode(msgspec.json.encode(document))
    wrong["channels"]["jobs"]["bindings"]["amqp"]["exchange"]["type"] = "quorum"
    assert not checker.is_valid(wrong)
    wrong = msgspec.json.decode(msgspec.json.encode(document))
    del wrong["operations"]["receiveJob"]["channel"]
    assert not checker.is_valid(wrong)


@pytest.mark.parametrize("name", SETTINGS)
def test_every_reference_leads_somewhere(name: str) -> None:
    """All references are within the document, and what each names is there."""
    document = document_of(SETTINGS[name])
    assert all(resolved(document, pointer) for pointer in references(document))


@pytest.mark.parametrize("name", SETTINGS)
def test_the_names_are_those_of_the_topology(name: str) -> None:
    """Exchanges with their kinds, keys and queues are those that the worker declares, retry queues left out."""
    document, topology = document_of(SETTINGS[name]), topology_of(SETTINGS[name])
    bindings = [
        (channel["address"], channel["bindings"]["amqp"])
        for channel in document["channels"].values()
        if "bindings" in channel
    ]
    exchanges = {
        (found["exchange"]["name"], found["exchange"]["type"])
        for _, found in bindings
        if found["is"] == "routingKey"
    }
    queues = {address for address, found in bindings if found["is"] == "queue"}
    assert exchanges == {(each.name, each.kind) for each in topology.exchanges if each.name != topology.retry}
    retries = {f"{topology.retry}.{step.key}" for step in topology.retry_steps}
    assert queues == {queue.name for queue in topology.queues} - retries
    keys = {(found["exchange"]["name"], key) for key, found in bindings if found["is"] == "routingKey"}
    direct = {
        (each.exchange, each.key)
        for each in topology.bindings
        if each.exchange in {topology.jobs, topology.dead}
    }
    assert direct <= keys


def test_the_job_examples_are_jobs(document: dict[str, Any]) -> None:
    """Each example of a job is valid by its schema, and the worker reads from it just what stands there."""
    examples = document["components"]["messages"]["job"]["examples"]
    assert [example["name"] for example in examples] == ["complete", "smallest"]
    for example in examples:
        assert is_valid(document, "Job", example["payload"])
        job = read_job(msgspec.json.encode(example["payload"]), Properties(headers=example["headers"]))
        assert job.account_number == example["payload"]["account_number"]
        assert (job.route, job.trace) == (example["payload"].get("route"), example["headers"])


@pytest.mark.parametrize(
    ("fields", "good"),
    [
        ({}, True),
        ({"account_number": "x" * 256}, True),
        ({"account_number": "x" * 257}, False),
        ({"account_number": "\U0001f600" * 256}, True),
        ({"account_number": ""}, False),
        ({"account_number": None}, False),
        ({"account_number": 18}, False),
        ({"account_number": "1\x85"}, False),
        ({"account_number": "1\n"}, False),
        ({"job_id": None}, True),
        ({"job_id": "x" * 128}, True),
        ({"job_id": "x" * 129}, False),
        ({"job_id": ""}, False),
        ({"job_id": 7}, False),
        ({"route": "A-z_09"}, True),
        ({"route": "x" * 65}, False),
        ({"route": "a.b"}, False),
        ({"route": ""}, False),
        ({"route": None}, True),
        ({"deadline": 7}, False),
        ({"deadline": None}, True),
        ({"metadata": {"a": [1]}}, True),
        ({"metadata": None}, True),
        ({"metadata": []}, False),
        ({"unknown": 1}, True),
    ],
)
def test_schema_and_decoder_agree_on_jobs(
    document: dict[str, Any], fields: dict[str, Any], good: bool
) -> None:
    """What the schema of a job accepts the worker reads, and what it refuses ends as invalid_job."""
    body = {"account_number": "18|1"} | fields
    assert is_valid(document, "Job", body) is good
    try:
        read_job(msgspec.json.encode(body), Properties())
        read = True
    except errors.InvalidJob:
        read = False
    assert read is good


def test_the_result_examples_are_the_workers_own(document: dict[str, Any]) -> None:
    """The examples of results are valid by their schemas and have every field, in the order described.

    But `replays`, which a result has only where its job was replayed.
    """
    for name, schema in (("succeeded", "Succeeded"), ("failed", "Failed")):
        (example,) = document["components"]["messages"][name]["examples"]
        jsonschema.Draft7Validator(body_schema(document, schema)).validate(example["payload"])
        described = document["components"]["schemas"][schema]
        required = [name for name in described["properties"] if name != "replays"]
        assert [*example["payload"]] == required == described["required"]
    (succeeded,) = document["components"]["messages"]["succeeded"]["examples"]
    listed = [(outcome["id"], outcome["description"]) for outcome in succeeded["payload"]["outcomes"]]
    assert succeeded["payload"]["fingerprint"] == outcomes.normalize(listed).fingerprint
    source = document["components"]["schemas"]["Succeeded"]["properties"]["source"]
    assert f"Literal{source['enum']}" == inspect.get_annotations(vars(LookupResult)["source"].fget)["return"]


@pytest.mark.parametrize("body", [b"", b"{}", b'{"account_number":"1","deadline":1}'])
def test_results_of_bad_jobs_are_valid(document: dict[str, Any], body: bytes) -> None:
    """The failed result of a job that can't be read, with its null account number, is valid as well."""
    with pytest.raises(errors.InvalidJob) as raised:
        read_job(body, Properties())
    message = result.failed(
        raised.value.job,
        raised.value,
        result.Completion(attempts=0, completed_at=NOW, duration_ms=0, worker="w"),
        amqp_exchange="",
    )
    jsonschema.Draft7Validator(body_schema(document, "Failed")).validate(msgspec.json.decode(message.body))


def test_every_error_has_its_code(document: dict[str, Any]) -> None:
    """The error codes are those of the taxonomy; only `expired` is no dead letter's; the transient ones are named."""
    pending, codes = [errors.JobError], {}
    while pending:
        kind = pending.pop()
        if "code" in vars(kind) and kind.__module__ == "worker.contract.errors":
            codes[kind.code] = kind
        pending += kind.__subclasses__()
    described = document["components"]["schemas"]["Error"]["properties"]
    dead = document["components"]["messages"]["deadLetter"]["headers"]["properties"]["outcome-error-code"]
    assert set(described["code"]["enum"]) == set(codes) == set(errors.ERRORS)
    assert set(codes) - set(dead["enum"]) == {"expired"}
    for code, kind in codes.items():
        assert f"`{code}`: " in described["code"]["description"]
        assert (f"`{code}`" in described["transient"]["description"]) is kind.transient


def test_the_dead_letter_has_the_headers_described(document: dict[str, Any]) -> None:
    """The example's headers, and those of a replayed job, are described with their types; none of ours is left out."""
    described = document["components"]["messages"]["deadLetter"]
    (example,) = described["examples"]
    replayed = read_job(b'{"account_number":"1"}', Properties(headers={"outcome-replays": 2}))
    copy = copies.dead_copy(Properties(), replayed, errors.Poison("p"), attempts=3, failed_at=NOW, worker="w")
    for headers in (example["headers"], dict(copy.headers)):
        jsonschema.Draft7Validator({**described["headers"], "additionalProperties": False}).validate(headers)


def test_servers_are_the_urls_without_credentials() -> None:
    """Each node of the cluster is a server, with its port and virtual host; user and password are nowhere."""
    document = document_of(SETTINGS["cluster"])
    servers = document["servers"]
    assert {name: (each["host"], each["pathname"], each["protocol"]) for name, each in servers.items()} == {
        "rabbitmq": ("a:5671", "/prod", "amqps"),
        "rabbitmq2": ("[::1]:5699", "/prod", "amqps"),
    }
    assert document["channels"]["jobs"]["bindings"]["amqp"]["exchange"]["vhost"] == "prod"
    assert "s3cret" not in str(document)
    assert "me:" not in str(document)


def test_callers_are_answered_only_where_they_are_admitted() -> None:
    """The reply to a job's reply_to is described where the settings allow one, and only there."""
    assert "reply" not in document_of(SETTINGS["default"])["operations"]["receiveJob"]
    reply = document_of(SETTINGS["callers"])["operations"]["receiveJob"]["reply"]
    assert reply["address"]["location"] == "$message.header#/reply_to"
    assert len(reply["messages"]) == 2


def test_both_formats_say_the_same(document: dict[str, Any]) -> None:
    """YAML, which is the default, and JSON hold the same document, and YAML has no references of its own."""
    in_yaml = printed()
    assert yaml.safe_load(in_yaml) == msgspec.json.decode(printed("--format", "json")) == document
    assert not any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(in_yaml))


def test_the_names_in_force_are_used() -> None:
    """The settings of the environment count: another prefix names everything."""
    in_force = printed(LCM_WORKER_BROKER__PREFIX="acme.outcomes")
    assert "acme.outcomes.jobs" in in_force
    assert "lcm.outcome.jobs" not in in_force


def test_the_committed_document_is_that_of_the_defaults() -> None:
    """config/asyncapi.yaml is what `lcm-worker asyncapi` prints without any setting; write it anew by that."""
    assert (TOP / "config/asyncapi.yaml").read_text() == printed()
