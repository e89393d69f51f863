"""Limits how often a subject may do something, with the binding of a RateLimitPolicy. Needs: pip install redis"""
import concurrent.futures, json, math, os, pathlib, random, sys, time
from redis import exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel

binding = pathlib.Path(os.environ["SERVICE_BINDING_ROOT"], "limits")
field = {file.name: file.read_text() for file in binding.iterdir() if file.is_file()}
seeds = [(host, int(port)) for host, port in (seed.rsplit(":", 1) for seed in field["sentinels"].split(","))]
# A layer that is slow is one that fails: after this many seconds `on-store-error` decides. A timeout of the client is for one read or
# write, of which a new connection needs several, so a call runs on a thread of its own, and nothing waits for it beyond the deadline.
calls = concurrent.futures.ThreadPoolExecutor(16)
deadline = float(os.environ.get("LIMIT_DEADLINE", "0.05"))
once = {"socket_connect_timeout": deadline, "socket_timeout": deadline, "retry": Retry(NoBackoff(), 0)}
sentinel_user = {"username": field["sentinel-username"], "password": field["sentinel-password"], **once}
user = {"username": field["username"], "password": field["password"], "decode_responses": True, **once}
redis = Sentinel(seeds, sentinel_kwargs=sentinel_user, **user).master_for(field["master-name"])


def quota(limit):
    seconds, rest = divmod(limit["windowMilliseconds"], 1000)
    return f'"{limit["name"]}";q={limit["quota"]}' + ("" if rest else f";w={seconds}")  # w is in whole seconds, and may be left out


quotas = ", ".join(map(quota, json.loads(field["limits"])))
shards = int(field["shards"])
denied = {}  # key -> (cost, when it was told, reply)
REMEMBERED = 1000  # denials at most: beyond them all are forgotten, and the layer is asked again


def headers(reply, age):
    """Of a response, by a reply that is `age` milliseconds old (draft-ietf-httpapi-ratelimit-headers-10)."""
    allowed, _, left, reset, retry, name = reply
    lines = {"RateLimit-Policy": quotas, "RateLimit": f'"{name}";r={left * shards};t={math.ceil((reset - age) / 1000)}'}
    if not allowed and retry > 0:  # -1: the cost is above what ever fits
        lines["Retry-After"] = str(math.ceil((retry - age) / 1000))
    return lines


def limit(subject, cost=1):
    """Whether a request is allowed, and the headers of its response."""
    shard = f":{random.randrange(shards)}" if shards > 1 else ""
    key = f"{field['prefix']}{{{subject}{shard}}}"
    denied_cost, told, reply = denied.get(key, (0, 0, None))
    age = 1000 * (time.monotonic() - told)
    if reply and cost >= denied_cost and age < reply[4]:
        return False, headers(reply, age)
    call = calls.submit(redis.fcall, "redoubt_limit", 1, key, cost)
    try:
        reply = call.result(deadline)
    except (exceptions.RedisError, concurrent.futures.TimeoutError):
        call.cancel()  # where no thread was free
        return field["on-store-error"] == "Allow", {}
    if not reply[0] and reply[4] > 0:
        if len(denied) >= REMEMBERED:
            denied.clear()
        denied[key] = cost, time.monotonic(), reply
    return reply[0] != 0, headers(reply, 0)


if __name__ == "__main__":
    for line in sys.stdin:  # COST SUBJECT
        cost, subject = line.rstrip("\n").split(" ", 1)
        allowed, lines = limit(subject, int(cost))
        print(json.dumps({"allowed": allowed, **lines}), flush=True)
