import io.lettuce.core.RedisCommandExecutionException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.concurrent.TimeUnit;
import org.springframework.dao.DataAccessException;
import org.springframework.data.redis.connection.RedisConfiguration;
import org.springframework.data.redis.connection.RedisNode;
import org.springframework.data.redis.connection.RedisSentinelConfiguration;
import org.springframework.data.redis.connection.RedisStandaloneConfiguration;
import org.springframework.data.redis.connection.lettuce.LettuceConnectionFactory;
import org.springframework.data.redis.core.RedisTemplate;
import org.springframework.data.redis.core.StringRedisTemplate;
import org.springframework.data.redis.listener.PatternTopic;
import org.springframework.data.redis.listener.RedisMessageListenerContainer;
import org.springframework.data.redis.serializer.RedisSerializer;
import org.springframework.session.FindByIndexNameSessionRepository;
import org.springframework.session.Session;
import org.springframework.session.SessionRepository;
import org.springframework.session.data.redis.RedisIndexedSessionRepository;
import org.springframework.session.data.redis.RedisSessionRepository;

/** Spring Session on Lettuce as an application has it. Prints one line for each claim that held; the first that does not ends it. */
public class SpringSession {
    static Path folder;
    static StringRedisTemplate redis;
    static String prefix;

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
        } catch (DataAccessException error) {
            check(error.getRootCause() instanceof RedisCommandExecutionException, words + ": " + error);
            check(error.getRootCause().getMessage().startsWith("NOPERM"), words + ": " + error.getRootCause());
            return;
        }
        throw new AssertionError(words + " was served");
    }

    /** What both repositories do. Returns a session that lives. */
    static <S extends Session> S use(SessionRepository<S> sessions, String keys) {
        S first = sessions.createSession();
        first.setAttribute("user", "ada");
        first.setAttribute("visits", 1);
        first.setAttribute(FindByIndexNameSessionRepository.PRINCIPAL_NAME_INDEX_NAME, "ada");
        sessions.save(first);
        String key = prefix + keys + first.getId();
        check(redis.hasKey(key), key);
        held("created under the prefix");
        S again = sessions.findById(first.getId());
        check("ada".equals(again.getAttribute("user")) && again.<Integer>getAttribute("visits") == 1, "read");
        held("read back");
        S other = sessions.findById(first.getId());
        again.setAttribute("visits", 2);
        other.setAttribute("language", "en");
        sessions.save(again);
        sessions.save(other);
        S both = sessions.findById(first.getId());
        check(both.<Integer>getAttribute("visits") == 2 && "en".equals(both.getAttribute("language")), "changes");
        held("changed, field by field");
        redis.expire(key, Duration.ofSeconds(100));
        S read = sessions.findById(first.getId());
        read.setLastAccessedTime(java.time.Instant.now());
        sessions.save(read);
        check(redis.getExpire(key, TimeUnit.SECONDS) > 1700, "ttl");
        held("renewed by a request");
        String old = read.getId();
        read.changeSessionId();
        sessions.save(read);
        check(sessions.findById(old) == null && "ada".equals(sessions.findById(read.getId()).getAttribute("user")), "id");
        held("moved to another id");
        return read;
    }

    static <S extends Session> void endedSessionStaysEnded(SessionRepository<S> sessions) {
        S session = use(sessions, "sessions:");
        S late = sessions.findById(session.getId());
        sessions.deleteById(session.getId());
        check(!redis.hasKey(prefix + "sessions:" + session.getId()), "deleted");
        held("destroyed");
        late.setAttribute("visits", 3);
        try {
            sessions.save(late);
        } catch (IllegalStateException error) {
            held("a late request is told that the session is gone");
            return;
        }
        throw new AssertionError("a deleted session was saved");
    }

    static <S extends Session> void endedSessionComesBack(SessionRepository<S> sessions) {
        S session = use(sessions, "sessions:");
        String key = prefix + "sessions:" + session.getId();
        check(((FindByIndexNameSessionRepository<?>) sessions).findByPrincipalName("ada").size() == 1, "by user");
        held("found by user");
        S late = sessions.findById(session.getId());
        sessions.deleteById(session.getId());
        check(sessions.findById(session.getId()) == null, "deleted");
        held("destroyed");
        late.setAttribute("visits", 3);
        sessions.save(late);
        check(sessions.findById(session.getId()) == null && redis.getExpire(key) > 1700, "kept");
        held("a late request keeps the data of a session that is gone");
        // A revoke from elsewhere that the repository does not know of: the key goes, the late request writes its fields.
        redis.delete(key);
        late.setAttribute("visits", 4);
        sessions.save(late);
        check(redis.hasKey(key) && redis.opsForHash().get(key, "creationTime") == null, "half a session");
        held("a late request leaves half a session behind");
        redis.delete(key);

        // Without its events, the index of a user keeps what has expired.
        S expiring = sessions.createSession();
        expiring.setAttribute(FindByIndexNameSessionRepository.PRINCIPAL_NAME_INDEX_NAME, "bea");
        sessions.save(expiring);
        redis.delete(prefix + "sessions:" + expiring.getId());
        String index = prefix + "index:" + FindByIndexNameSessionRepository.PRINCIPAL_NAME_INDEX_NAME + ":bea";
        check(redis.opsForSet().size(index) == 1 && redis.getExpire(index) == -1, "the index");
        held("the index keeps a session that is gone");
        redis.delete(index);
    }

    public static void main(String[] arguments) throws Exception {
        folder = Path.of(System.getenv("SERVICE_BINDING_ROOT"), arguments[0]);
        prefix = field("prefix");
        var factory = configuration() instanceof RedisSentinelConfiguration layer
                ? new LettuceConnectionFactory(layer)
                : new LettuceConnectionFactory((RedisStandaloneConfiguration) configuration());
        factory.afterPropertiesSet();
        factory.start();
        redis = new StringRedisTemplate(factory);
        var template = new RedisTemplate<String, Object>();
        template.setConnectionFactory(factory);
        template.setKeySerializer(RedisSerializer.string());
        template.setHashKeySerializer(RedisSerializer.string());
        template.afterPropertiesSet();
        // The repository puts the colon of the prefix itself.
        String namespace = prefix.substring(0, prefix.length() - 1);

        var simple = new RedisSessionRepository(template);
        simple.setRedisKeyNamespace(namespace);
        endedSessionStaysEnded(simple);

        var indexed = new RedisIndexedSessionRepository(template);
        indexed.setRedisKeyNamespace(namespace);
        endedSessionComesBack(indexed);

        var events = new RedisMessageListenerContainer();
        events.setConnectionFactory(factory);
        events.setMaxSubscriptionRegistrationWaitingTime(1000);
        events.addMessageListener(indexed, new PatternTopic("__keyevent@0__:expired"));
        events.afterPropertiesSet();
        try {
            events.start();
            throw new AssertionError("events of all tenants' keys were served");
        } catch (RuntimeException error) {
            held("events of expiry refused");
        }
        try {
            events.destroy();
        } catch (Exception alreadyDown) {
            // It never was up.
        }

        refused("SET", () -> redis.opsForValue().set("other:key", "x"));
        refused("GET", () -> redis.opsForValue().get("other:key"));
        held("refused outside of the prefix");
        System.exit(0);
    }
}
