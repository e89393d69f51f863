"""Django's cache sessions on django-redis. Prints one line for each claim that held; the first that does not ends it."""

from importlib import import_module

import binding
import django
from binding import client, field, held
from django.conf import settings
from redis.exceptions import NoPermissionError

prefix = field("prefix")
options = {"USERNAME": field("username"), "PASSWORD": field("password")}
location = f"redis://{field('host')}:{field('port')}/0"
if binding.has_sentinels():
    location = f"redis://{field('master-name')}/0"
    options |= {
        "CLIENT_CLASS": "django_redis.client.SentinelClient",
        "CONNECTION_POOL_CLASS": "redis.sentinel.SentinelConnectionPool",
        "SENTINELS": binding.seeds(),
        "SENTINEL_KWARGS": binding.sentinel_user(),
    }
    options["CONNECTION_FACTORY"] = "django_redis.pool.SentinelConnectionFactory"
settings.configure(
    SECRET_KEY="not a secret here",
    CACHES={
        "default": {
            "BACKEND": "django_redis.cache.RedisCache",
            "LOCATION": location,
            # Keys are KEY_PREFIX:version:name, so the colon of the store's prefix is Django's.
            "KEY_PREFIX": prefix.removesuffix(":"),
            "OPTIONS": options,
        }
    },
    SESSION_ENGINE="django.contrib.sessions.backends.cache",
    SESSION_COOKIE_AGE=1800,
)
django.setup()
SessionStore = import_module(settings.SESSION_ENGINE).SessionStore
redis = client()

first = SessionStore()
first["user"], first["visits"] = "ada", 1
first.create()
key = f"{prefix}1:{first.cache_key}"
assert redis.exists(key) == 1, key
held("created under the prefix")
again = SessionStore(first.session_key)
assert (again["user"], again["visits"]) == ("ada", 1)
held("read back")
again["visits"] = 2
again.save()
assert SessionStore(first.session_key)["visits"] == 2
held("changed")
redis.expire(key, 100)
SessionStore(first.session_key).get("user")
assert redis.ttl(key) <= 100
held("not renewed by a read")
again.save()
assert redis.ttl(key) > 1700
held("renewed by a save")

# Of two requests that change different fields at the same time, the later one wins all.
one, other = SessionStore(first.session_key), SessionStore(first.session_key)
one["basket"], other["language"] = "full", "en"
one.save()
other.save()
assert "basket" not in SessionStore(first.session_key)
held("a change is lost to another of the same time")

late = SessionStore(first.session_key)
late["visits"] += 1
first.delete()
assert redis.exists(key) == 0
held("destroyed")
try:
    late.save()
    raise AssertionError("a deleted session was saved")
except Exception as error:
    assert type(error).__name__ == "UpdateError", error
held("a late request is told that the session is gone")

# But it looks and then writes: a logout between the two is undone.
late = SessionStore()
late["user"] = "ada"
late.create()
key = f"{prefix}1:{late.cache_key}"
cache_set = late._cache.set


def logout_meanwhile(*arguments, **named):
    SessionStore(late.session_key).delete()
    assert redis.exists(key) == 0
    return cache_set(*arguments, **named)


late._cache.set = logout_meanwhile
late.save()
late._cache.set = cache_set
assert redis.exists(key) == 1
held("a logout between its look and its write is undone")
late.flush()
assert redis.exists(key) == 0

for command in (lambda: redis.set("other:key", "x"), lambda: redis.get("other:key"), late._cache.clear):
    try:
        command()
    except NoPermissionError:
        continue
    raise AssertionError("served outside of the prefix")
held("refused outside of the prefix")
