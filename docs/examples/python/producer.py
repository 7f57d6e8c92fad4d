"""Publishes a job for each account number, and returns once the broker has confirmed all of them.

    pip install pika
    AMQP_URL=amqp://user:password@host:5672 python producer.py '18|1|2|0|0|44|274' ...

Shows a persistent, mandatory, confirmed publish that tells who sent it, and what to do where the broker returns a job
(no queue is bound: a mistake, stop) or refuses it, or the connection is lost (publish the same job again, later).
"""

import json
import os
import sys
import time
import uuid

import pika
from pika.exceptions import AMQPError, NackError, UnroutableError

URL = pika.URLParameters(os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672"))
APP_ID = "dialer-example"
EXCHANGE, ROUTING_KEY = "lcm.outcome.jobs", "job"
ROUTE = "emea"
PAUSES = [1, 5, 30]  # seconds before each further try


def new_job(account_number):
    # The job keeps its id however often it is published: its results then have one message_id, by which consumers drop
    # all but the first. To ask about the account once more is a new job with a new id.
    return {"job_id": str(uuid.uuid4()), "account_number": account_number, "route": ROUTE}


def publish(outbox):
    """Take each job out of the outbox once the broker has it. A new channel each time: an old one may stay refused."""
    with pika.BlockingConnection(URL) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        while outbox:
            job = outbox[0]
            properties = pika.BasicProperties(
                content_type="application/json",
                delivery_mode=pika.DeliveryMode.Persistent.value,
                message_id=job["job_id"],
                timestamp=int(time.time()),
                user_id=URL.credentials.username,  # verified: the broker closes the channel where it differs
                app_id=APP_ID,
            )
            channel.basic_publish(EXCHANGE, ROUTING_KEY, json.dumps(job), properties, mandatory=True)
            outbox.pop(0)
            print("confirmed", job["account_number"], flush=True)


def main(account_numbers):
    # A real producer's outbox is a table of its database, written in the transaction that wants the lookup.
    outbox = [new_job(each) for each in account_numbers]
    for pause in [*PAUSES, None]:
        try:
            publish(outbox)
        except UnroutableError:
            sys.exit(f"returned: {EXCHANGE} has no queue for the key {ROUTING_KEY}; jobs kept: {len(outbox)}")
        except (AMQPError, OSError) as error:
            what = "refused" if isinstance(error, NackError) else f"connection failed: {error!r}"
            if pause is None:
                sys.exit(f"{what}; jobs kept: {len(outbox)}")
            print(f"{what}; again in {pause} s", file=sys.stderr, flush=True)
            time.sleep(pause)
        else:
            break


if __name__ == "__main__":
    main(sys.argv[1:])
