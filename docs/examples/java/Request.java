// Asks for one account's outcomes and waits for the answer, by RabbitMQ's direct reply-to.
//
//     export CLASSPATH=.:amqp-client.jar:gson.jar:slf4j-api.jar:slf4j-nop.jar
//     javac Request.java
//     AMQP_URL=amqp://user:password@host:5672 java Request '18|1|2|0|0|44|274'
//
// Shows request and response without a queue of results: the workers need broker.reply_to_prefixes to hold
// "amq.rabbitmq.reply-to.". Replies are best effort: without one, ask again.

import com.google.gson.Gson;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import com.rabbitmq.client.AMQP.BasicProperties;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Connection;
import com.rabbitmq.client.ConnectionFactory;
import java.nio.charset.StandardCharsets;
import java.time.Instant;
import java.util.Map;
import java.util.UUID;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;

public class Request {
    static final String APP_ID = "dialer-example";
    static final String EXCHANGE = "lcm.outcome.jobs", ROUTING_KEY = "job";
    static final String REPLY_TO = "amq.rabbitmq.reply-to";
    static final int TIMEOUT = 30; // seconds

    static JsonObject request(String accountNumber) throws Exception {
        String jobId = UUID.randomUUID().toString();
        CompletableFuture<JsonObject> reply = new CompletableFuture<>();
        ConnectionFactory factory = new ConnectionFactory();
        factory.setUri(System.getenv().getOrDefault("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672"));
        try (Connection connection = factory.newConnection(); Channel channel = connection.createChannel()) {
            channel.addReturnListener(message -> reply.completeExceptionally(
                    new IllegalStateException("returned: " + EXCHANGE + " has no queue for the key " + ROUTING_KEY)));
            channel.addShutdownListener(reply::completeExceptionally);
            // Before the request, and on the same channel.
            channel.basicConsume(REPLY_TO, true, (tag, message) -> {
                String body = new String(message.getBody(), StandardCharsets.UTF_8);
                if (jobId.equals(message.getProperties().getCorrelationId())) {
                    reply.complete(JsonParser.parseString(body).getAsJsonObject());
                }
            }, tag -> {});
            // Nobody waits for the answer after the deadline: the workers then don't ask LCM for it.
            String deadline = Instant.now().plusSeconds(TIMEOUT).toString();
            Map<String, String> job = Map.of("job_id", jobId, "account_number", accountNumber, "deadline", deadline);
            BasicProperties properties = new BasicProperties.Builder()
                    .contentType("application/json")
                    .messageId(jobId)
                    .correlationId(jobId)
                    .replyTo(REPLY_TO)
                    .userId(factory.getUsername())
                    .appId(APP_ID)
                    .build();
            byte[] body = new Gson().toJson(job).getBytes(StandardCharsets.UTF_8);
            channel.basicPublish(EXCHANGE, ROUTING_KEY, true, properties, body);
            return reply.get(TIMEOUT, TimeUnit.SECONDS);
        }
    }

    public static void main(String[] arguments) throws Exception {
        try {
            JsonObject result = request(arguments[0]);
            if (result.get("status").getAsString().equals("failed")) end("failed: " + result.get("error"));
            for (JsonElement each : result.getAsJsonArray("outcomes")) {
                JsonObject outcome = each.getAsJsonObject();
                System.out.println(outcome.get("id").getAsString() + " " + outcome.get("description").getAsString());
            }
        } catch (TimeoutException late) {
            end("no reply: ask again");
        } catch (ExecutionException error) {
            end(error.getCause().getMessage());
        }
    }

    static void end(String why) {
        System.err.println(why);
        System.exit(1);
    }
}
