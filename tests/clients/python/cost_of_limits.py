"""Calls per second of `limits`, of the functions that do the same, or of INCR. Arguments: binding, way, connections, calls."""

import sys
import time
from concurrent.futures import ThreadPoolExecutor

from limits import RateLimitItemPerHour
from limits.storage import storage_from_string
from limits.strategies import FixedWindowRateLimiter, MovingWindowRateLimiter, SlidingWindowCounterRateLimiter

from binding import client, field, user

WAY, CONNECTIONS, CALLS = sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
STRATEGIES = {"fixed": FixedWindowRateLimiter, "moving": MovingWindowRateLimiter, "sliding": SlidingWindowCounterRateLimiter}


def caller():
    """A function that makes one call for a subject, on connections of its own pool."""
    if WAY == "incr":
        redis = client()
        return lambda subject: redis.execute_command("INCR", f"rate:i:{subject}")  # its incr() sends INCRBY
    if WAY.startswith("redoubt-"):
        redis, letter = client(), WAY[-1]
        return lambda subject: redis.fcall("redoubt_limit", 1, f"rate:{letter}:{{{subject}}}")
    strategy, _, statistics = WAY.partition("+")
    storage = storage_from_string(f"redis://{field('host')}:{field('port')}", key_prefix=f"rate:{strategy}", **user())
    limiter, limit = STRATEGIES[strategy](storage), RateLimitItemPerHour(10_000)

    def hit(subject):
        assert limiter.hit(limit, subject)
        if statistics:
            limiter.get_window_stats(limit, subject)

    return hit


def share(first):
    for at in range(first, CALLS, CONNECTIONS):
        call(str(at * 7 % 5_000))


call = caller()
call("0")
began = time.monotonic()
if CONNECTIONS == 1:
    share(0)
else:
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        list(pool.map(share, range(CONNECTIONS)))
print(round(CALLS / (time.monotonic() - began)))
