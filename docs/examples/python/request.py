"""Asks for one account's outcomes and waits for the answer, by RabbitMQ's direct reply-to.

    pip install pika
    AMQP_URL=amqp://user:password@host:5672 python request.py '18|1|2|0|0|44|274'

Shows request and response without a queue of results: the workers need broker.reply_to_prefixes to hold
"amq.rabbitmq.reply-to.". Replies are best effort: without one, ask again.
"""

import json
import os
import sys
import time
import uuid
from datetime import UTC, datetime, timedelta

import pika
from pika.exceptions import UnroutableError

URL = pika.URLParameters(os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672"))
APP_ID = "dialer-example"
EXCHANGE, ROUTING_KEY = "lcm.outcome.jobs", "job"
REPLY_TO = "amq.rabbitmq.reply-to"
TIMEOUT = 30  # seconds


def request(account_number):
    """Return the result, or None where none came in time."""
    job_id = str(uuid.uuid4())
    replies = []

    def on_reply(_channel, _delivery, properties, body):
        if properties.correlation_id == job_id:
            replies.append(json.loads(body))

    with pika.BlockingConnection(URL) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.basic_consume(
            REPLY_TO, on_reply, auto_ack=True
        )  # before the request, and on the same channel
        # Nobody waits for the answer after the deadline: the workers then don't ask LCM for it.
        deadline = datetime.now(UTC) + timedelta(seconds=TIMEOUT)
        job = {"job_id": job_id, "account_number": account_number, "deadline": deadline.isoformat()}
        properties = pika.BasicProperties(
            content_type="application/json",
            message_id=job_id,
            correlation_id=job_id,
            reply_to=REPLY_TO,
            user_id=URL.credentials.username,
            app_id=APP_ID,
        )
        channel.basic_publish(EXCHANGE, ROUTING_KEY, json.dumps(job), properties, mandatory=True)
        end = time.monotonic() + TIMEOUT
        while not replies and (left := end - time.monotonic()) > 0:
            connection.process_data_events(time_limit=left)
    return replies[0] if replies else None


def main(account_number):
    try:
        result = request(account_number)
    except UnroutableError:
        sys.exit(f"returned: {EXCHANGE} has no queue for the key {ROUTING_KEY}")
    if result is None:
        sys.exit("no reply: ask again")
    if result["status"] == "failed":
        sys.exit(f"failed: {result['error']['code']}: {result['error']['message']}")
    for outcome in result["outcomes"]:
        print(outcome["id"], outcome["description"])


if __name__ == "__main__":
    main(sys.argv[1])
