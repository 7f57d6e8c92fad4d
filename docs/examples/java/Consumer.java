// Takes the results of one route from a durable queue of its own, until Ctrl-C.
//
//     export CLASSPATH=.:amqp-client.jar:gson.jar:slf4j-api.jar:slf4j-nop.jar
//     javac Consumer.java
//     AMQP_URL=amqp://user:password@host:5672 java Consumer
//
// Shows the queue and its bindings, acknowledging by hand, dropping repeats by message_id, and skipping outcome lists
// that are the same as before by their fingerprint.

import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.ConnectionFactory;
import com.rabbitmq.client.Delivery;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;

public class Consumer {
    static final String EXCHANGE = "lcm.outcome.results", ROUTE = "emea";
    static final String QUEUE = EXCHANGE + "." + ROUTE;
    // `result.succeeded` alone gets no result of a job with a route: its key is `result.succeeded.<route>`. Bind
    // `result.#` for all results, `result.succeeded.#` for all that succeeded.
    static final List<String> BINDINGS = List.of("result.succeeded." + ROUTE, "result.failed." + ROUTE);
    // Without a limit, RabbitMQ 4 drops a result that came back 20 times, as from a consumer that crashes over and
    // over.
    static final Map<String, Object> ARGUMENTS = Map.of("x-queue-type", "quorum", "x-delivery-limit", 1_000_000);
    static final int PREFETCH = 50;

    // A real consumer keeps both in its database: the id as a unique key, written in one transaction with what it does
    // about the result, so that a repeat after a crash is known as well.
    static final Set<String> seen = new HashSet<>();
    static final Map<String, JsonObject> lists = new HashMap<>();

    static void onResult(Channel channel, Delivery message) throws IOException {
        String messageId = message.getProperties().getMessageId();
        if (seen.contains(messageId)) {
            System.out.println("repeat " + messageId);
        } else {
            String body = new String(message.getBody(), StandardCharsets.UTF_8);
            handle(JsonParser.parseString(body).getAsJsonObject());
            seen.add(messageId);
        }
        // Only now: what was not acknowledged comes again.
        channel.basicAck(message.getEnvelope().getDeliveryTag(), false);
    }

    static void handle(JsonObject result) {
        if (text(result, "status").equals("failed")) {
            JsonObject error = result.getAsJsonObject("error");
            System.out.println("failed " + text(result, "job_id") + " " + text(error, "code"));
            return;
        }
        String account = text(result, "account_number");
        JsonObject known = lists.get(account);
        // Results come in any order; the times sort as text.
        if (known != null && text(result, "looked_up_at").compareTo(text(known, "looked_up_at")) < 0) {
            System.out.println("older " + account);
            return;
        }
        if (known != null && text(result, "fingerprint").equals(text(known, "fingerprint"))) {
            System.out.println("unchanged " + account);
        } else {
            StringBuilder ids = new StringBuilder();
            for (JsonElement outcome : result.getAsJsonArray("outcomes")) {
                ids.append(" ").append(text(outcome.getAsJsonObject(), "id"));
            }
            System.out.println("changed " + account + ids);
        }
        lists.put(account, result);
    }

    static String text(JsonObject object, String name) {
        return object.get(name).getAsString();
    }

    public static void main(String[] arguments) throws Exception {
        ConnectionFactory factory = new ConnectionFactory();
        factory.setUri(System.getenv().getOrDefault("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672"));
        factory.setAutomaticRecoveryEnabled(false);
        Channel channel = factory.newConnection().createChannel();
        // Ends where the connection or the queue is lost, and where a result can't be handled: leave starting it again
        // to what runs your services.
        channel.addShutdownListener(cause -> end(cause.toString()));
        channel.queueDeclare(QUEUE, true, false, false, ARGUMENTS);
        for (String key : BINDINGS) channel.queueBind(QUEUE, EXCHANGE, key);
        channel.basicQos(PREFETCH);
        System.out.println("consuming " + QUEUE);
        channel.basicConsume(
                QUEUE, false, (tag, message) -> onResult(channel, message), tag -> end("the queue was deleted"));
    }

    static void end(String why) {
        System.err.println(why);
        Runtime.getRuntime().halt(1);
    }
}
