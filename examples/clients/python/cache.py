"""Reads through a cache, with the binding of a CacheNamespace. Needs: pip install redis"""
import os, pathlib, threading, time
from redis import exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel

binding = pathlib.Path(os.environ["SERVICE_BINDING_ROOT"], "cache")
field = {file.name: file.read_text() for file in binding.iterdir() if file.is_file()}
seeds = [(host, int(port)) for host, port in (seed.rsplit(":", 1) for seed in field["sentinels"].split(","))]
once = {"socket_connect_timeout": 0.5, "socket_timeout": 1, "retry": Retry(NoBackoff(), 0)}  # seconds
sentinel_user = {"username": field["sentinel-username"], "password": field["sentinel-password"], **once}
user = {"username": field["username"], "password": field["password"], "decode_responses": True, **once}
redis = Sentinel(seeds, sentinel_kwargs=sentinel_user, **user).master_for(field["master-name"])
prefix = field["prefix"]
PATIENCE = 5  # seconds to wait for what another caller computes
COPIED = 10  # seconds for which a copy in this process is used at most


class SourceDown(Exception):
    pass


def tell(function, key, *arguments):
    """Says how a computation ended. A cache that is away now costs the next reader one: the answer is there without it."""
    try:
        redis.fcall(function, 1, key, *arguments)
    except exceptions.RedisError:
        pass


def cached(key, compute, tags=(), ttl_ms=""):
    """The value of a key; computed by this caller if it is the one that is told to."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            verdict, value, token, wait = (*redis.fcall("redoubt_cache_get", 1, key), "", 0)[:4]
        except exceptions.RedisError:
            return compute()  # a cache that is away costs time, not answers: bound what reaches the source here
        if token:
            try:
                fresh = compute()
            except Exception:
                tell("redoubt_cache_fail", key, token)
                if verdict < 1:
                    raise
                return value  # stale, and the next callers get it too
            if fresh is None:
                tell("redoubt_cache_negative", key, token, *tags)
            else:
                tell("redoubt_cache_set", key, token, fresh, ttl_ms, *tags)  # 0: overtaken; the value is still ours to use
            return fresh
        if verdict >= 1:
            return value
        if verdict == -2 or time.monotonic() > deadline:
            raise SourceDown(key)
        time.sleep(min(wait / 1000, 0.02))


class Copies:
    """Copies in this process of what the cache said. A message removes one; what may have been missed removes all."""

    def __init__(self):
        self.values, self.heard, self.lock = {}, None, threading.Lock()
        threading.Thread(target=self.listen, daemon=True).start()

    def get(self, key, compute, tags=()):
        with self.lock:
            copy, until = self.values.get(key, (None, 0))
            if time.monotonic() < until:
                return copy
            heard = self.heard
        value = cached(key, compute, tags)
        with self.lock:
            if heard and heard == self.heard:  # else it may be from before an invalidation
                self.values[key] = value, time.monotonic() + COPIED
        return value

    def at(self, run, number, key=None):
        with self.lock:
            is_next = self.heard and self.heard[0] == run and self.heard[1] + (key is not None) == number
            if not is_next or key == "":
                self.values.clear()
            self.values.pop(key, None)
            self.heard = run, number

    def listen(self):
        while True:
            try:
                with redis.pubsub() as subscriber:
                    subscriber.subscribe(field["channel"])
                    asked = 0
                    while True:
                        message = subscriber.get_message(timeout=1)
                        if message and message["type"] == "message":
                            run, number, kind, what = message["data"].split(" ", 3)
                            self.at(run, int(number), what if kind == "k" else "")
                        elif time.monotonic() - asked > 5:  # nothing is on its way: what was sent and not heard was missed
                            self.at(*redis.fcall_ro("redoubt_caches_position", 0, prefix))
                            asked = time.monotonic()
            except exceptions.RedisError:
                with self.lock:
                    self.values.clear()
                    self.heard = None
                time.sleep(0.1)


def main():
    key = f"{prefix}{{0}}python"
    computed = []
    source = lambda: computed.append(1) or f"value {len(computed)}"
    readers = [threading.Thread(target=cached, args=(key, source, ["shop"])) for _ in range(8)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    print("one computed" if len(computed) == 1 else f"{len(computed)} computed")

    redis.fcall("redoubt_cache_invalidate_tag", 1, f"{prefix}{{0}}", "shop")
    print(cached(key, source, ["shop"], ttl_ms=20))
    time.sleep(0.05)

    def down():
        raise SourceDown("source")

    print("stale", cached(key, down), cached(key, down))
    try:
        cached(f"{key} gone", down)
    except SourceDown:
        print("down")
    copies = Copies()
    other = f"{prefix}{{0}}python copy"
    while other not in copies.values:
        copies.get(other, lambda: "copied")
    redis.fcall("redoubt_cache_invalidate", 1, other)
    while other in copies.values:
        time.sleep(0.01)
    print("told")
    while other not in copies.values:
        copies.get(other, lambda: "copied")
    copies.at("1", 1, "another run")
    print("noticed" if other not in copies.values else "missed")


if __name__ == "__main__":
    main()
