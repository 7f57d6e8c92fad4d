"""Takes the results of one route from a durable queue of its own, until Ctrl-C.

    pip install pika
    AMQP_URL=amqp://user:password@host:5672 python consumer.py

Shows the queue and its bindings, acknowledging by hand, dropping repeats by message_id, and skipping outcome lists that
are the same as before by their fingerprint.
"""

import json
import os

import pika

URL = pika.URLParameters(os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672"))
EXCHANGE, ROUTE = "lcm.outcome.results", "emea"
QUEUE = f"{EXCHANGE}.{ROUTE}"
# `result.succeeded` alone gets no result of a job with a route: its key is `result.succeeded.<route>`. Bind `result.#`
# for all results, `result.succeeded.#` for all that succeeded.
BINDINGS = [f"result.succeeded.{ROUTE}", f"result.failed.{ROUTE}"]
# Without a limit, RabbitMQ 4 drops a result that came back 20 times, as from a consumer that crashes over and over.
ARGUMENTS = {"x-queue-type": "quorum", "x-delivery-limit": 1_000_000}
PREFETCH = 50

# A real consumer keeps both in its database: the id as a unique key, written in one transaction with what it does about
# the result, so that a repeat after a crash is known as well.
seen = set()
lists = {}


def on_result(channel, delivery, properties, body):
    if properties.message_id in seen:
        print("repeat", properties.message_id, flush=True)
    else:
        handle(json.loads(body))
        seen.add(properties.message_id)
    channel.basic_ack(delivery.delivery_tag)  # only now: what was not acknowledged comes again


def handle(result):
    if result["status"] == "failed":
        print("failed", result["job_id"], result["error"]["code"], flush=True)
        return
    account = result["account_number"]
    known = lists.get(account)
    if (
        known and result["looked_up_at"] < known["looked_up_at"]
    ):  # results come in any order; the times sort as text
        print("older", account, flush=True)
        return
    if known and result["fingerprint"] == known["fingerprint"]:
        print("unchanged", account, flush=True)
    else:
        print("changed", account, *(outcome["id"] for outcome in result["outcomes"]), flush=True)
    lists[account] = result


def main():
    with pika.BlockingConnection(URL) as connection:
        channel = connection.channel()
        channel.queue_declare(QUEUE, durable=True, arguments=ARGUMENTS)
        for key in BINDINGS:
            channel.queue_bind(QUEUE, EXCHANGE, key)
        channel.basic_qos(prefetch_count=PREFETCH)
        channel.basic_consume(QUEUE, on_result)
        print("consuming", QUEUE, flush=True)
        # Ends where the connection or the queue is lost: leave starting it again to what runs your services.
        channel.start_consuming()


if __name__ == "__main__":
    main()
