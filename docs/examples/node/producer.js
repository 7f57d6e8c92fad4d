// Publishes a job for each account number, and ends once the broker has confirmed all of them.
//
//     npm ci
//     AMQP_URL=amqp://user:password@host:5672 node producer.js '18|1|2|0|0|44|274' ...
//
// Shows a persistent, mandatory, confirmed publish that tells who sent it, and what to do where the broker returns a
// job (no queue is bound: a mistake, stop) or refuses it, or the connection is lost (publish the same job again).

import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import amqp from "amqplib";

const AMQP_URL = process.env.AMQP_URL ?? "amqp://guest:guest@127.0.0.1:5672";
const USER = decodeURIComponent(new URL(AMQP_URL).username);
const APP_ID = "dialer-example";
const [EXCHANGE, ROUTING_KEY] = ["lcm.outcome.jobs", "job"];
const ROUTE = "emea";
const PAUSES = [1, 5, 30]; // seconds before each further try

class Returned extends Error {}

// The job keeps its id however often it is published: its results then have one message_id, by which consumers drop all
// but the first. To ask about the account once more is a new job with a new id.
const newJob = (accountNumber) => ({ job_id: randomUUID(), account_number: accountNumber, route: ROUTE });

// Takes each job out of the outbox once the broker has it. A new channel each time: an old one may stay refused.
async function publish(outbox) {
  const connection = await amqp.connect(AMQP_URL);
  connection.on("error", () => {}); // whatever waits for a confirm is told
  try {
    const channel = await connection.createConfirmChannel();
    channel.on("error", () => {});
    const returned = new Set();
    channel.on("return", ({ properties }) => returned.add(properties.messageId)); // comes before the confirm
    while (outbox.length) {
      const job = outbox[0];
      const properties = {
        contentType: "application/json",
        persistent: true,
        messageId: job.job_id,
        timestamp: Math.floor(Date.now() / 1000),
        userId: USER, // verified: the broker closes the channel where it differs
        appId: APP_ID,
        mandatory: true,
      };
      await new Promise((resolve, reject) =>
        channel.publish(EXCHANGE, ROUTING_KEY, Buffer.from(JSON.stringify(job)), properties, (error) =>
          error ? reject(error) : resolve(),
        ),
      );
      if (returned.has(job.job_id)) throw new Returned();
      outbox.shift();
      console.log("confirmed", job.account_number);
    }
  } finally {
    await connection.close().catch(() => {});
  }
}

async function main(accountNumbers) {
  // A real producer's outbox is a table of its database, written in the transaction that wants the lookup.
  const outbox = accountNumbers.map(newJob);
  for (const pause of [...PAUSES, null]) {
    try {
      return await publish(outbox);
    } catch (error) {
      if (error instanceof Returned)
        throw `returned: ${EXCHANGE} has no queue for the key ${ROUTING_KEY}; jobs kept: ${outbox.length}`;
      const what = error.message === "message nacked" ? "refused" : `connection failed: ${error}`;
      if (pause === null) throw `${what}; jobs kept: ${outbox.length}`;
      console.error(`${what}; again in ${pause} s`);
      await sleep(pause * 1000);
    }
  }
}

main(process.argv.slice(2)).catch((reason) => {
  console.error(reason);
  process.exitCode = 1;
});
