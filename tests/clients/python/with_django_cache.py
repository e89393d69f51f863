"""Django's cache on django-redis, and on Django's own backend. Prints one line for each claim that held; the first that does not ends
it."""

import binding
import django
from binding import client, field, held
from django.conf import settings
from redis.exceptions import NoPermissionError

prefix = field("prefix")
plain = {"USERNAME": field("username"), "PASSWORD": field("password")}
location = f"redis://{field('host')}:{field('port')}/0"
options = dict(plain)
through = location
if binding.has_sentinels():
    through = f"redis://{field('master-name')}/0"
    options |= {
        "CLIENT_CLASS": "django_redis.client.SentinelClient",
        "CONNECTION_POOL_CLASS": "redis.sentinel.SentinelConnectionPool",
        "SENTINELS": binding.seeds(),
        "SENTINEL_KWARGS": binding.sentinel_user(),
        "CONNECTION_FACTORY": "django_redis.pool.SentinelConnectionFactory",
    }
settings.configure(
    CACHES={
        # Keys are KEY_PREFIX:version:name, so the colon of the cache's prefix is Django's.
        "default": {
            "BACKEND": "django_redis.cache.RedisCache",
            "LOCATION": through,
            "KEY_PREFIX": prefix.removesuffix(":"),
            "TIMEOUT": 300,
            "OPTIONS": options,
        },
        # It knows no Sentinels.
        "own": {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": location,
            "KEY_PREFIX": prefix.removesuffix(":"),
            "TIMEOUT": 300,
            "OPTIONS": {"username": field("username"), "password": field("password")},
        },
    },
)
django.setup()
from django.core.cache import caches  # noqa: E402

redis = client()


def refused(command):
    try:
        command()
    except Exception as error:
        while error is not None and not isinstance(error, NoPermissionError):
            error = error.__cause__ or error.__context__
        assert error is not None
        return
    raise AssertionError("served")


def read_your_writes(cache):
    """django-redis reads from a replica, which is a moment late: each read waits until the replica has all that was written."""
    get_client = cache.client.get_client

    def client_of(write=True, *arguments, **named):
        if not write:
            redis.set(f"{prefix}barrier", 1, ex=60)
            assert redis.wait(1, 30_000) == 1
        return get_client(write, *arguments, **named)

    cache.client.get_client = client_of


for name in ("default", "own"):
    cache = caches[name]
    if name == "default" and binding.has_sentinels():
        read_your_writes(cache)
    cache.set("page", {"title": "one"})
    key = f"{prefix}1:page"
    assert redis.exists(key) == 1, key
    assert cache.get("page") == {"title": "one"}
    held("set and read under the prefix")
    assert 290 < redis.ttl(key) <= 300
    cache.set("eternal", 1, timeout=None)
    assert redis.ttl(f"{prefix}1:eternal") == -1
    held("every key ends, unless its caller says never")
    assert cache.add("page", "two") is False and cache.add("added", 1) is True
    assert cache.touch("page", 100) and redis.ttl(key) <= 100
    cache.set_many({"a": 1, "b": 2})
    assert cache.get_many(["a", "b", "c"]) == {"a": 1, "b": 2}
    cache.delete_many(["a", "b"])
    assert cache.get_or_set("page", lambda: "computed") == {"title": "one"}
    held("add, touch, many, get_or_set")
    # What was computed before an invalidation is stored after it.
    computed = "old"
    cache.delete("page")
    cache.set("page", computed)
    assert cache.get("page") == "old"
    held("a late set brings back what was invalidated")
    # Nothing says that somebody computes already.
    cache.delete("page")
    assert cache.get("page") is None and cache.get("page") is None
    held("every caller that misses computes")
    cache.set("count", 1)
    if name == "default":
        # Its script is refused, and it reads and writes instead.
        read = cache.client.get

        def read_and_another_counts(*arguments, **named):
            value = read(*arguments, **named)
            redis.incr(f"{prefix}1:count")
            return value

        cache.client.get = read_and_another_counts
        cache.incr("count")
        cache.client.get = read
        assert cache.get("count") == 2
        held("two of incr at once count as one: its script is refused")
        refused(lambda: cache.delete_pattern("*"))
        held("delete_pattern is refused: it scans")
    else:
        assert cache.incr("count") == 2
        held("incr")
    refused(cache.clear)
    assert cache.get("count") is not None
    held("clear is refused, and nothing is gone")
    cache.delete_many(["count", "added", "eternal"])
refused(lambda: redis.get("other:key"))
held("refused outside of the prefix")
