"""Limits how often a subject may do something, with the binding of a RateLimitPolicy. Needs: pip install redis"""
import concurrent.futures, json, math, os, pathlib, sys, time
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
denied = {}  # subject -> (until when, headers)


def limit(subject, cost=1):
    """Whether a request is allowed, and the headers of its response (draft-ietf-httpapi-ratelimit-headers-10)."""
    until, headers = denied.get(subject, (0, None))
    if time.monotonic() < until:
        return False, headers
    call = calls.submit(redis.fcall, "redoubt_limit", 1, f"{field['prefix']}{{{subject}}}", cost)
    try:
        allowed, _, left, reset, retry, name = call.result(deadline)
    except (exceptions.RedisError, concurrent.futures.TimeoutError):
        call.cancel()  # where no thread was free
        return field["on-store-error"] == "Allow", {}
    headers = {"RateLimit-Policy": quotas, "RateLimit": f'"{name}";r={left};t={math.ceil(reset / 1000)}'}
    if not allowed and retry > 0:
        headers["Retry-After"] = str(max(1, math.ceil(retry / 1000)))
        denied[subject] = time.monotonic() + retry / 1000, headers
    return allowed != 0, headers


if __name__ == "__main__":
    for line in sys.stdin:
        allowed, headers = limit(line.strip())
        print(json.dumps({"allowed": allowed, **headers}), flush=True)
