// Asks for one account's outcomes and waits for the answer, by RabbitMQ's direct reply-to.
//
//     npm ci
//     AMQP_URL=amqp://user:password@host:5672 node request.js '18|1|2|0|0|44|274'
//
// Shows request and response without a queue of results: the workers need broker.reply_to_prefixes to hold
// "amq.rabbitmq.reply-to.". Replies are best effort: without one, ask again.

import { randomUUID } from "node:crypto";
import amqp from "amqplib";

const AMQP_URL = process.env.AMQP_URL ?? "amqp://guest:guest@127.0.0.1:5672";
const USER = decodeURIComponent(new URL(AMQP_URL).username);
const APP_ID = "dialer-example";
const [EXCHANGE, ROUTING_KEY] = ["lcm.outcome.jobs", "job"];
const REPLY_TO = "amq.rabbitmq.reply-to";
const TIMEOUT = 30; // seconds

// Gives the result; throws where none came in time.
async function request(accountNumber) {
  const jobId = randomUUID();
  const connection = await amqp.connect(AMQP_URL);
  let timer;
  try {
    const channel = await connection.createConfirmChannel();
    const reply = new Promise((resolve, reject) => {
      const onReply = ({ properties, content }) => {
        if (properties.correlationId === jobId) resolve(JSON.parse(content));
      };
      channel.consume(REPLY_TO, onReply, { noAck: true }).catch(reject); // before the request, and on the same channel
      channel.on("return", () => reject(`returned: ${EXCHANGE} has no queue for the key ${ROUTING_KEY}`));
      connection.on("error", reject);
      channel.on("error", reject);
      timer = setTimeout(() => reject("no reply: ask again"), TIMEOUT * 1000);
    });
    // Nobody waits for the answer after the deadline: the workers then don't ask LCM for it.
    const deadline = new Date(Date.now() + TIMEOUT * 1000).toISOString();
    const job = { job_id: jobId, account_number: accountNumber, deadline };
    const properties = {
      contentType: "application/json",
      messageId: jobId,
      correlationId: jobId,
      replyTo: REPLY_TO,
      userId: USER,
      appId: APP_ID,
      mandatory: true,
    };
    channel.publish(EXCHANGE, ROUTING_KEY, Buffer.from(JSON.stringify(job)), properties);
    return await reply;
  } finally {
    clearTimeout(timer);
    await connection.close().catch(() => {});
  }
}

async function main(accountNumber) {
  const result = await request(accountNumber);
  if (result.status === "failed") throw `failed: ${result.error.code}: ${result.error.message}`;
  for (const { id, description } of result.outcomes) console.log(id, description);
}

main(process.argv[2]).catch((reason) => {
  console.error(reason);
  process.exitCode = 1;
});
