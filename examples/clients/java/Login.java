import io.lettuce.core.ClientOptions;
import io.lettuce.core.RedisClient;
import io.lettuce.core.RedisCommandExecutionException;
import io.lettuce.core.RedisException;
import io.lettuce.core.RedisURI;
import io.lettuce.core.ScriptOutputType;
import io.lettuce.core.SocketOptions;
import io.lettuce.core.resource.ClientResources;
import io.lettuce.core.resource.Delay;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.security.SecureRandom;
import java.time.Duration;
import java.util.HexFormat;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.function.Supplier;

/** Logs a user in to the session store of a binding. Needs io.lettuce:lettuce-core. */
public class Login {
    static String field(String name) throws Exception {
        return Files.readString(Path.of(System.getenv("SERVICE_BINDING_ROOT"), "web", name));
    }

    /** Makes a call, and again where it failed with its connection or on a server that is not the primary. */
    static <T> T call(Supplier<T> redis) throws InterruptedException {
        for (long until = System.nanoTime() + 8_000_000_000L;; Thread.sleep(50)) {
            try {
                return redis.get();
            } catch (RedisException error) {
                boolean isRefused = error instanceof RedisCommandExecutionException && !error.getMessage().matches("(NOREPLICAS|READONLY).*");
                if (isRefused || System.nanoTime() > until) throw error;
            }
        }
    }

    public static void main(String[] arguments) throws Exception {
        var layer = RedisURI.builder().withSentinelMasterId(field("master-name"))
            .withAuthentication(field("username"), field("password")).withTimeout(Duration.ofSeconds(1));
        for (var seed : field("sentinels").split(",")) {
            int colon = seed.lastIndexOf(':');
            layer.withSentinel(RedisURI.builder().withHost(seed.substring(0, colon)).withPort(Integer.parseInt(seed.substring(colon + 1)))
                .withAuthentication(field("sentinel-username"), field("sentinel-password")).withTimeout(Duration.ofMillis(500)).build());
        }
        var resources = ClientResources.builder()
            .reconnectDelay(Delay.exponential(Duration.ofMillis(20), Duration.ofMillis(250), 2, TimeUnit.MILLISECONDS)).build();
        var client = RedisClient.create(resources);
        client.setOptions(ClientOptions.builder()
            .socketOptions(SocketOptions.builder().connectTimeout(Duration.ofMillis(500)).build()).build());
        var redis = client.connect(layer.build()).sync();

        String user = "ada";
        byte[] random = new byte[16];
        new SecureRandom().nextBytes(random);
        byte[] digest = MessageDigest.getInstance("SHA-256").digest(user.getBytes(StandardCharsets.UTF_8));
        String tag = HexFormat.of().formatHex(digest, 0, 4);
        String[] key = {field("prefix") + "{" + tag + "}s:" + HexFormat.of().formatHex(random)};
        call(() -> redis.fcall("redoubt_session_create", ScriptOutputType.INTEGER, key, user, "role", "admin"));
        List<Object> session = call(() -> redis.fcall("redoubt_session_get", ScriptOutputType.MULTI, key));
        System.out.println(session.get(3) + " " + session.get(4)); // after the version, and when it was created and ends

        // For whom measures a failover: reads on for so long, and says how long the longest call took.
        var stay = System.getenv("STAY_SECONDS");
        long until = System.nanoTime() + 1_000_000_000L * (stay == null ? 0 : Integer.parseInt(stay)), longest = 0;
        for (long began; (began = System.nanoTime()) < until; Thread.sleep(10)) {
            call(() -> redis.fcall("redoubt_session_get", ScriptOutputType.MULTI, key));
            longest = Math.max(longest, System.nanoTime() - began);
        }
        if (longest > 0) System.out.println("longest call " + longest / 1_000_000 + " ms");
        client.shutdown(Duration.ZERO, Duration.ofSeconds(1));
        resources.shutdown();
    }
}
