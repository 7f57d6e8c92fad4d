"""The definitions document as data: who may do what, by regular expressions that match exactly."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.support.settings import broker_settings
from worker.broker.admin.definitions import Users, definitions_of, vhost_of
from worker.broker.topology import topology_of

WORKER, PRODUCER, CONSUMER = Users().all
KINDS = ("configure", "write", "read")


def document(*, replies: bool = False, accounts: bool = True, **settings: Any) -> dict[str, Any]:
    topology = topology_of(broker_settings("amqp://127.0.0.1/", **settings))
    return definitions_of(topology, vhost="prod", users=Users(), replies=replies, accounts=accounts)


def allowed(exported: dict[str, Any], names: list[str]) -> dict[str, dict[str, set[str]]]:
    """Return, by user and kind of permission, which of these names its pattern admits."""
    return {
        entry["user"]: {
            kind: {name for name in names if re.search(entry[kind], name, re.ASCII)} for kind in KINDS
        }
        for entry in exported["permissions"]
    }


@pytest.mark.parametrize(
    ("url", "vhost"),
    [
        ("amqp://mq", "/"),
        ("amqp://mq/", "/"),
        ("amqp://mq/%2F", "/"),
        ("amqp://mq/prod", "prod"),
        ("amqps://u:p@mq:5671/a%2Fb%20c?heartbeat=5", "a/b c"),
    ],
)
def test_the_vhost_is_the_urls(url: str, vhost: str) -> None:
    """The virtual host is what stands behind the URL's slash, unquoted, and the default one without it."""
    assert vhost_of(url) == vhost


def test_each_user_is_given_exactly_what_it_needs() -> None:
    """Of all names that stand, each user may touch those of its part alone, and consumers make names of their own."""
    exported = document()
    names = [entry["name"] for kind in ("exchanges", "queues") for entry in exported[kind]]
    own = "lcm.outcome.results.dialer-7"
    assert allowed(exported, [*names, "", "amq.default", "amq.topic", own]) == {
        WORKER: {
            "configure": {""},
            "write": {f"lcm.outcome.{name}" for name in ("results", "retry", "dead", "undelivered")},
            "read": {"lcm.outcome.jobs", "lcm.outcome.undelivered"},
        },
        PRODUCER: {"configure": {""}, "write": {"lcm.outcome.jobs"}, "read": {""}},
        CONSUMER: {"configure": {own}, "write": {own}, "read": {"lcm.outcome.results", own}},
    }


def test_permissions_match_no_neighbour() -> None:
    """A dot of a name is a dot and no other character, and what begins or ends with a name is another name."""
    near = [
        f"{before}{name}{after}"
        for name in ("a.b-c.jobs", "a.b-c.results", "a.b-c.retry", "a.b-c.dead", "a.b-c.undelivered")
        for before, after in (("x", ""), ("", "x"), ("", "."), ("x.", ""))
    ] + ["aXb-c.jobs", "a.b-cXresults", "aXb-c.resultsXmine", "A.B-C.JOBS"]
    found = allowed(document(prefix="a.b-c"), near)
    assert {name for rights in found.values() for names in rights.values() for name in names} == set()


def test_only_a_worker_that_answers_callers_may_use_the_default_exchange() -> None:
    """`amq.default` is for the worker to write to, and only where reply_to is honoured."""
    rights = allowed(document(replies=True), ["amq.default", "amq_default"])
    assert rights[WORKER]["write"] == {"amq.default"}
    assert [rights[user][kind] for user in (PRODUCER, CONSUMER) for kind in KINDS] == [set()] * 6


def test_no_user_has_a_password() -> None:
    """Every password hash is empty and no user has a tag; without accounts there are permissions alone."""
    assert {(user["password_hash"], tuple(user["tags"])) for user in document()["users"]} == {("", ())}
    without = document(accounts=False)
    assert without["users"] == []
    assert [entry["user"] for entry in without["permissions"]] == list(Users().all)


def test_all_of_it_is_in_the_virtual_host() -> None:
    """Whatever belongs to a virtual host names the one that is asked for, which is declared as well."""
    exported = document()
    kinds = ("permissions", "exchanges", "queues", "bindings")
    assert {entry["vhost"] for kind in kinds for entry in exported[kind]} == {"prod"}
    assert exported["vhosts"] == [{"name": "prod"}]
