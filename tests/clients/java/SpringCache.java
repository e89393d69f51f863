import io.lettuce.core.RedisCommandExecutionException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import org.springframework.data.redis.cache.BatchStrategies;
import org.springframework.data.redis.cache.RedisCacheConfiguration;
import org.springframework.data.redis.cache.RedisCacheManager;
import org.springframework.data.redis.cache.RedisCacheWriter;
import org.springframework.data.redis.connection.RedisConfiguration;
import org.springframework.data.redis.connection.RedisNode;
import org.springframework.data.redis.connection.RedisSentinelConfiguration;
import org.springframework.data.redis.connection.RedisStandaloneConfiguration;
import org.springframework.data.redis.connection.lettuce.LettuceConnectionFactory;
import org.springframework.data.redis.core.StringRedisTemplate;

/** Spring Cache on Lettuce as an application has it. Prints one line for each claim that held; the first that does not ends it. */
public class SpringCache {
    static Path folder;

    static String field(String name) throws Exception {
        return Files.readString(folder.resolve(name));
    }

    static RedisConfiguration configuration() throws Exception {
        if (!Files.exists(folder.resolve("sentinels"))) {
            var server = new RedisStandaloneConfiguration(field("host"), Integer.parseInt(field("port")));
            server.setUsername(field("username"));
            server.setPassword(field("password"));
            return server;
        }
        var layer = new RedisSentinelConfiguration().master(field("master-name"));
        for (var seed : field("sentinels").split(",")) {
            layer.sentinel(RedisNode.fromString(seed));
        }
        layer.setUsername(field("username"));
        layer.setPassword(field("password"));
        layer.setSentinelUsername(field("sentinel-username"));
        layer.setSentinelPassword(field("sentinel-password"));
        return layer;
    }

    static void check(boolean claim, String words) {
        if (!claim) {
            throw new AssertionError(words);
        }
    }

    static void held(String claim) {
        System.out.println(claim);
    }

    static void refused(String words, Runnable command) {
        try {
            command.run();
        } catch (RuntimeException error) {
            Throwable cause = error;
            while (cause != null && !(cause instanceof RedisCommandExecutionException)) {
                cause = cause.getCause();
            }
            check(cause != null && cause.getMessage().startsWith("NOPERM"), words + ": " + error);
            return;
        }
        throw new AssertionError(words + " was served");
    }

    public static void main(String[] arguments) throws Exception {
        folder = Path.of(System.getenv("SERVICE_BINDING_ROOT"), arguments[0]);
        var connections = new LettuceConnectionFactory(configuration());
        connections.afterPropertiesSet();
        connections.start();
        var redis = new StringRedisTemplate(connections);
        var prefix = field("prefix");
        var defaults = RedisCacheConfiguration.defaultCacheConfig().prefixCacheNameWith(prefix).entryTtl(Duration.ofMinutes(5));
        // Otherwise `put` and `evict` return before the server did it.
        var writer = RedisCacheWriter.create(connections, options -> options.immediateWrites());
        var caches = RedisCacheManager.builder(writer).cacheDefaults(defaults).build();
        caches.afterPropertiesSet();
        var pages = caches.getCache("pages");

        pages.put("home", "one");
        var key = prefix + "pages::home";
        check(redis.hasKey(key), key);
        check("one".equals(pages.get("home", String.class)), "read");
        held("set and read under the prefix");
        var left = redis.getExpire(key);
        check(left > 290 && left <= 300, "ends in " + left);
        held("every key ends");
        check("one".equals(pages.putIfAbsent("home", "two").get()), "putIfAbsent");
        check("computed".equals(pages.get("other", () -> "computed")), "loader");
        pages.evict("home");
        check(pages.get("home") == null, "evicted");
        held("putIfAbsent, loader, evict");
        pages.put("home", "old");
        check("old".equals(pages.get("home", String.class)), "late");
        held("a late set brings back what was invalidated");
        refused("clear", () -> pages.invalidate());
        check(pages.get("home") != null, "cleared");
        held("clear is refused, and nothing is gone");
        var scanning = RedisCacheManager.builder(RedisCacheWriter.create(connections, options -> options.immediateWrites().batchStrategy(BatchStrategies.scan(100))))
            .cacheDefaults(defaults).build();
        scanning.afterPropertiesSet();
        refused("clear by scan", () -> scanning.getCache("pages").invalidate());
        held("clear by scan is refused too");
        refused("another prefix", () -> redis.opsForValue().get("other:key"));
        held("refused outside of the prefix");
        connections.destroy();
    }
}
