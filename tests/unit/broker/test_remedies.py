"""The remedies for words that the broker of the tests can't be made to say."""

from __future__ import annotations

import pytest

from worker.broker.remedies import remedy_for


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        (
            "530 NOT_ALLOWED - connection refused: node connection limit (10) is reached",
            "close connections, or raise connection_max",
        ),
        (
            "530 NOT_ALLOWED - number of channels opened on node 'a@b' has reached the maximum allowed limit of (9)",
            "channel_max_per_node",
        ),
        (
            "406 PRECONDITION_FAILED - cannot declare queue 'q': queue limit in cluster (3) is reached",
            "cluster_queue_limit",
        ),
        (
            "406 PRECONDITION_FAILED - cannot declare exchange 'e' in vhost '/': exchange limit of 7 is reached",
            "cluster_exchange_limit",
        ),
        (
            "406 - queue 'queue 'lcm.outcome.fleet' in vhost 'v 2'' does not have a replica on the local node",
            "rabbitmq-streams add_replica --vhost 'v 2' lcm.outcome.fleet NODE",
        ),
        (
            "406 - stream queue 'lcm.outcome.fleet' in vhost '/' does not have a running replica on the local node",
            "rabbitmq-streams add_replica --vhost / lcm.outcome.fleet NODE",
        ),
    ],
)
def test_limits_of_later_versions(said: str, remedy: str) -> None:
    """Limits that RabbitMQ 3.10 does not know have the name of their setting; words of a cluster have a command."""
    assert remedy in remedy_for(said)


def test_names_are_quoted_for_a_shell() -> None:
    """A name that a shell would take apart stands in the command as one word."""
    assert "add_vhost 'a b; rm'`" in remedy_for("530 NOT_ALLOWED - vhost a b; rm not found")


def test_unknown_words_have_no_remedy() -> None:
    """What is not known here is told without advice that may be wrong."""
    assert remedy_for("320 CONNECTION_FORCED - broker forced connection closure") == ""
