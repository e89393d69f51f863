"""limits, on which Flask-Limiter and slowapi stand, as an application has it. SCRIPTS is set if its user may run them."""

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from unittest import mock

from limits import RateLimitItemPerHour, RateLimitItemPerMinute
from limits.storage import storage_from_string
from limits.strategies import FixedWindowRateLimiter, MovingWindowRateLimiter, SlidingWindowCounterRateLimiter
from redis.exceptions import NoPermissionError, ResponseError

from binding import client, field, has_sentinels, held, seeds, sentinel_user, user

STRATEGIES = FixedWindowRateLimiter, MovingWindowRateLimiter, SlidingWindowCounterRateLimiter
PREFIX = field("prefix")
THREE = RateLimitItemPerMinute(3)


def storage(prefix):
    """`limits` puts the colon after the prefix."""
    options = {"key_prefix": prefix.removesuffix(":"), **user()}
    if not has_sentinels():
        return storage_from_string(f"redis://{field('host')}:{field('port')}", **options)
    # Statistics are read of replicas otherwise, a moment late.
    return storage_from_string(f"redis+sentinel://{field('sentinels')}/{field('master-name')}", sentinel_kwargs=sentinel_user(),
                               use_replicas=False, **options)


def refused(call):
    try:
        call()
    except NoPermissionError:
        return True
    except ResponseError as error:
        # Each engine has words of its own for what a script was refused.
        return any(words in str(error) for words in ("NOPERM", "can't run this command", "ACL failure"))
    return False


def limit(store):
    for strategy in STRATEGIES:
        limiter, subject = strategy(store), (strategy.__name__, "ada", sys.argv[1])
        assert [limiter.hit(THREE, *subject) for _ in range(4)] == [True, True, True, False]
        assert limiter.get_window_stats(THREE, *subject).remaining == 0
    held("three of four calls, by each strategy")
    for strategy in STRATEGIES:
        limiter, subject, ten = strategy(store), (strategy.__name__, "crowd", sys.argv[1]), RateLimitItemPerHour(10)
        with ThreadPoolExecutor(16) as pool:
            assert sum(pool.map(lambda _: limiter.hit(ten, *subject), range(64))) == 10
    held("ten of 64 calls at once")
    limiter, subject = MovingWindowRateLimiter(store), ("MovingWindowRateLimiter", "ada", sys.argv[1])
    later = time.time() + 61
    assert not limiter.hit(THREE, *subject)
    with mock.patch("limits.storage.redis.time.time", lambda: later):
        assert limiter.hit(THREE, *subject)
    held("the moving window believes the caller's clock")
    FixedWindowRateLimiter(store).hit(THREE, "changed", sys.argv[1])
    try:
        MovingWindowRateLimiter(store).hit(THREE, "changed", sys.argv[1])
    except ResponseError as error:
        assert "WRONGTYPE" in str(error)
        held("another strategy over the same counters fails")
    assert refused(store.reset)
    held("reset, which walks all keys, refused")


store = storage(PREFIX)
if "SCRIPTS" in os.environ:
    limit(store)
else:
    assert all(refused(lambda: strategy(store).hit(THREE, "ada")) for strategy in STRATEGIES)
    held("refused without scripts, each strategy")
assert refused(lambda: FixedWindowRateLimiter(storage("other:")).hit(THREE, "ada"))
assert refused(lambda: client().set("other:key", "x"))
held("refused outside of the prefix")
