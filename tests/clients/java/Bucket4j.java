import io.github.bucket4j.Bucket;
import io.github.bucket4j.BucketConfiguration;
import io.github.bucket4j.TimeMeter;
import io.github.bucket4j.distributed.ExpirationAfterWriteStrategy;
import io.github.bucket4j.distributed.proxy.ProxyManager;
import io.github.bucket4j.redis.lettuce.Bucket4jLettuce;
import io.lettuce.core.RedisClient;
import io.lettuce.core.RedisCommandExecutionException;
import io.lettuce.core.RedisURI;
import io.lettuce.core.api.StatefulRedisConnection;
import io.lettuce.core.codec.ByteArrayCodec;
import io.lettuce.core.codec.RedisCodec;
import io.lettuce.core.codec.StringCodec;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Collections;
import java.util.concurrent.Callable;
import java.util.concurrent.Executors;
import java.util.stream.Stream;

/**
 * bucket4j on Lettuce as an application has it. SCRIPTS is set if its user may run them.
 * Prints one line for each claim that held; the first that does not ends it.
 */
public class Bucket4j {
    static Path folder;

    static String field(String name) throws Exception {
        return Files.readString(folder.resolve(name));
    }

    static RedisURI address() throws Exception {
        var password = field("password").toCharArray();
        if (!Files.exists(folder.resolve("sentinels"))) {
            return RedisURI.builder().withHost(field("host")).withPort(Integer.parseInt(field("port")))
                .withAuthentication(field("username"), password).build();
        }
        var layer = RedisURI.builder().withSentinelMasterId(field("master-name")).withAuthentication(field("username"), password);
        for (var seed : field("sentinels").split(",")) {
            var parts = seed.split(":");
            layer.withSentinel(RedisURI.builder().withHost(parts[0]).withPort(Integer.parseInt(parts[1]))
                .withAuthentication(field("sentinel-username"), field("sentinel-password").toCharArray()).build());
        }
        return layer.build();
    }

    static void check(boolean claim, String words) {
        if (!claim) {
            throw new AssertionError(words);
        }
    }

    static void held(String claim) {
        System.out.println(claim);
    }

    static void refused(String words, Callable<?> command) throws Exception {
        try {
            command.call();
        } catch (RuntimeException error) {
            Throwable cause = error;
            while (!(cause instanceof RedisCommandExecutionException) && cause.getCause() != null) {
                cause = cause.getCause();
            }
            var text = String.valueOf(cause.getMessage());
            check(Stream.of("NOPERM", "No permissions", "can't run this command", "ACL failure").anyMatch(text::contains), words + ": " + error);
            return;
        }
        throw new AssertionError(words + " was served");
    }

    static Bucket bucket(ProxyManager<String> buckets, String key, int capacity) {
        var limits = BucketConfiguration.builder().addLimit(limit -> limit.capacity(capacity).refillGreedy(capacity, Duration.ofHours(1))).build();
        return buckets.builder().build(key, () -> limits);
    }

    static void limit(StatefulRedisConnection<String, byte[]> connection, String subjects) throws Exception {
        var expiring = Bucket4jLettuce.casBasedBuilder(connection)
            .expirationAfterWrite(ExpirationAfterWriteStrategy.basedOnTimeForRefillingBucketUpToMax(Duration.ofSeconds(10)));
        var buckets = expiring.build();
        var three = bucket(buckets, subjects + "ada", 3);
        for (int call = 0; call < 4; call++) {
            var answer = three.tryConsumeAndReturnRemaining(1);
            check(answer.isConsumed() == (call < 3), answer.toString());
            check(call < 3 || Duration.ofNanos(answer.getNanosToWaitForRefill()).toMinutes() == 19, answer.toString());
        }
        held("three of four calls");
        var crowd = bucket(buckets, subjects + "crowd", 10);
        var pool = Executors.newFixedThreadPool(16);
        var admitted = 0;
        for (var answer : pool.invokeAll(Collections.<Callable<Boolean>>nCopies(64, () -> crowd.tryConsume(1)))) {
            admitted += answer.get() ? 1 : 0;
        }
        pool.shutdown();
        check(admitted == 10, admitted + " at once");
        held("ten of 64 calls at once");
        check(connection.sync().pttl(subjects + "ada") > 0, "expires");
        bucket(Bucket4jLettuce.casBasedBuilder(connection).build(), subjects + "kept", 3).tryConsume(1);
        check(connection.sync().pttl(subjects + "kept") == -1, "kept");
        held("without an expiration a key is kept");
        TimeMeter ahead = new TimeMeter() {
            public long currentTimeNanos() {
                return (System.currentTimeMillis() + 3_600_000) * 1_000_000;
            }

            public boolean isWallClockBased() {
                return true;
            }
        };
        check(!three.tryConsume(1), "full");
        check(bucket(expiring.clientClock(ahead).build(), subjects + "ada", 3).tryConsume(3), "ahead");
        held("the bucket believes the caller's clock");
    }

    public static void main(String[] arguments) throws Exception {
        folder = Path.of(System.getenv("SERVICE_BINDING_ROOT"), arguments[0]);
        var client = RedisClient.create();
        var connection = client.connect(RedisCodec.of(StringCodec.UTF8, ByteArrayCodec.INSTANCE), address());
        var buckets = Bucket4jLettuce.casBasedBuilder(connection).build();
        var subjects = field("prefix") + arguments[0] + "-";
        if (System.getenv("SCRIPTS") != null) {
            limit(connection, subjects);
        } else {
            refused("a bucket", () -> bucket(buckets, subjects + "ada", 3).tryConsume(1));
            held("refused without scripts");
        }
        refused("another's bucket", () -> bucket(buckets, "other:ada", 3).tryConsume(1));
        refused("another's key", () -> connection.sync().set("other:key", new byte[1]));
        held("refused outside of the prefix");
        client.shutdown(Duration.ZERO, Duration.ZERO);
    }
}
