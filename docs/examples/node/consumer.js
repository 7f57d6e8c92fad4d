// Takes the results of one route from a durable queue of its own, until Ctrl-C.
//
//     npm ci
//     AMQP_URL=amqp://user:password@host:5672 node consumer.js
//
// Shows the queue and its bindings, acknowledging by hand, dropping repeats by message_id, and skipping outcome lists
// that are the same as before by their fingerprint.

import amqp from "amqplib";

const AMQP_URL = process.env.AMQP_URL ?? "amqp://guest:guest@127.0.0.1:5672";
const [EXCHANGE, ROUTE] = ["lcm.outcome.results", "emea"];
const QUEUE = `${EXCHANGE}.${ROUTE}`;
// `result.succeeded` alone gets no result of a job with a route: its key is `result.succeeded.<route>`. Bind `result.#`
// for all results, `result.succeeded.#` for all that succeeded.
const BINDINGS = [`result.succeeded.${ROUTE}`, `result.failed.${ROUTE}`];
// Without a limit, RabbitMQ 4 drops a result that came back 20 times, as from a consumer that crashes over and over.
const ARGUMENTS = { "x-queue-type": "quorum", "x-delivery-limit": 1_000_000 };
const PREFETCH = 50;

// A real consumer keeps both in its database: the id as a unique key, written in one transaction with what it does
// about the result, so that a repeat after a crash is known as well.
const seen = new Set();
const lists = new Map();

function onResult(channel, message) {
  const { messageId } = message.properties;
  if (seen.has(messageId)) {
    console.log("repeat", messageId);
  } else {
    handle(JSON.parse(message.content));
    seen.add(messageId);
  }
  channel.ack(message); // only now: what was not acknowledged comes again
}

function handle(result) {
  if (result.status === "failed") {
    console.log("failed", result.job_id, result.error.code);
    return;
  }
  const account = result.account_number;
  const known = lists.get(account);
  if (known && result.looked_up_at < known.looked_up_at) { // results come in any order; the times sort as text
    console.log("older", account);
    return;
  }
  if (known && result.fingerprint === known.fingerprint) {
    console.log("unchanged", account);
  } else {
    console.log("changed", account, ...result.outcomes.map((outcome) => outcome.id));
  }
  lists.set(account, result);
}

async function main() {
  const connection = await amqp.connect(AMQP_URL);
  const channel = await connection.createChannel();
  await channel.assertQueue(QUEUE, { durable: true, arguments: ARGUMENTS });
  for (const key of BINDINGS) await channel.bindQueue(QUEUE, EXCHANGE, key);
  await channel.prefetch(PREFETCH);
  await channel.consume(QUEUE, (message) => {
    if (message === null) throw new Error("the queue was deleted");
    onResult(channel, message);
  });
  console.log("consuming", QUEUE);
  // Ends, by an `error` that nobody listens to, where the connection or the queue is lost: leave starting it again to
  // what runs your services.
  connection.on("close", () => process.exit(1));
}

await main();
