// Publishes a job for each account number, and ends once the broker has confirmed all of them.
//
//     export CLASSPATH=.:amqp-client.jar:gson.jar:slf4j-api.jar:slf4j-nop.jar
//     javac Producer.java
//     AMQP_URL=amqp://user:password@host:5672 java Producer '18|1|2|0|0|44|274' ...
//
// Shows a persistent, mandatory, confirmed publish that tells who sent it, and what to do where the broker returns a
// job (no queue is bound: a mistake, stop) or refuses it, or the connection is lost (publish the same job again).

import com.google.gson.Gson;
import com.rabbitmq.client.AMQP.BasicProperties;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Connection;
import com.rabbitmq.client.ConnectionFactory;
import com.rabbitmq.client.ShutdownSignalException;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayDeque;
import java.util.Date;
import java.util.Deque;
import java.util.Map;
import java.util.Set;
import java.util.UUID;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.TimeoutException;

public class Producer {
    static final String APP_ID = "dialer-example";
    static final String EXCHANGE = "lcm.outcome.jobs", ROUTING_KEY = "job";
    static final String ROUTE = "emea";
    static final int[] PAUSES = {1, 5, 30}; // seconds before each further try

    static final Gson JSON = new Gson();

    static class Returned extends Exception {}

    static class Refused extends IOException {}

    // The job keeps its id however often it is published: its results then have one message_id, by which consumers drop
    // all but the first. To ask about the account once more is a new job with a new id.
    static Map<String, String> newJob(String accountNumber) {
        return Map.of("job_id", UUID.randomUUID().toString(), "account_number", accountNumber, "route", ROUTE);
    }

    // Takes each job out of the outbox once the broker has it. A new channel each time: an old one may stay refused.
    static void publish(Deque<Map<String, String>> outbox) throws Exception {
        ConnectionFactory factory = new ConnectionFactory();
        factory.setUri(System.getenv().getOrDefault("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672"));
        factory.setAutomaticRecoveryEnabled(false); // it would not publish again what was not confirmed
        try (Connection connection = factory.newConnection(); Channel channel = connection.createChannel()) {
            channel.confirmSelect();
            Set<String> returned = ConcurrentHashMap.newKeySet();
            channel.addReturnListener(message -> returned.add(message.getProperties().getMessageId()));
            while (!outbox.isEmpty()) {
                Map<String, String> job = outbox.peek();
                BasicProperties properties = new BasicProperties.Builder()
                        .contentType("application/json")
                        .deliveryMode(2) // persistent
                        .messageId(job.get("job_id"))
                        .timestamp(new Date())
                        .userId(factory.getUsername()) // verified: the broker closes the channel where it differs
                        .appId(APP_ID)
                        .build();
                byte[] body = JSON.toJson(job).getBytes(StandardCharsets.UTF_8);
                channel.basicPublish(EXCHANGE, ROUTING_KEY, true, properties, body);
                if (!channel.waitForConfirms()) throw new Refused();
                if (returned.contains(job.get("job_id"))) throw new Returned(); // it came before the confirm
                outbox.remove();
                System.out.println("confirmed " + job.get("account_number"));
            }
        }
    }

    public static void main(String[] accountNumbers) throws Exception {
        // A real producer's outbox is a table of its database, written in the transaction that wants the lookup.
        Deque<Map<String, String>> outbox = new ArrayDeque<>();
        for (String each : accountNumbers) outbox.add(newJob(each));
        for (int tries = 0; ; tries++) {
            try {
                publish(outbox);
                return;
            } catch (Returned returned) {
                end("returned: " + EXCHANGE + " has no queue for the key " + ROUTING_KEY, outbox);
            } catch (IOException | ShutdownSignalException | TimeoutException error) {
                String what = error instanceof Refused ? "refused" : "connection failed: " + error;
                if (tries == PAUSES.length) end(what, outbox);
                System.err.println(what + "; again in " + PAUSES[tries] + " s");
                Thread.sleep(PAUSES[tries] * 1000L);
            }
        }
    }

    static void end(String why, Deque<?> outbox) {
        System.err.println(why + "; jobs kept: " + outbox.size());
        System.exit(1);
    }
}
