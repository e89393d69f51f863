"""Logs a user in to the session store of a binding. Needs: pip install redis"""
import hashlib, os, pathlib, secrets, time
from redis import exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel

once = {"socket_connect_timeout": 0.5, "socket_timeout": 1, "retry": Retry(NoBackoff(), 0)}  # seconds


def connect():
    """Reads the binding: its fields, and a client that asks the Sentinels where the primary is."""
    binding = pathlib.Path(os.environ["SERVICE_BINDING_ROOT"], "web")
    field = {file.name: file.read_text() for file in binding.iterdir() if file.is_file()}
    seeds = [(host, int(port)) for host, port in (seed.rsplit(":", 1) for seed in field["sentinels"].split(","))]
    sentinel_user = {"username": field["sentinel-username"], "password": field["sentinel-password"], **once}
    user = {"username": field["username"], "password": field["password"], "decode_responses": True, **once}
    return field, Sentinel(seeds, sentinel_kwargs=sentinel_user, **user).master_for(field["master-name"])


def call(function, *arguments):
    """Calls a function. Each attempt asks the Sentinels: the retries of the client itself go to the primary of before."""
    global redis
    until = time.monotonic() + 8
    while True:
        try:
            return redis.fcall(function, 1, *arguments)
        except exceptions.RedisError as error:
            moves = isinstance(error, (exceptions.ConnectionError, exceptions.TimeoutError, exceptions.ReadOnlyError))
            if time.monotonic() > until or not (moves or str(error).startswith("NOREPLICAS")):
                raise
            time.sleep(0.05)
            if isinstance(error, (exceptions.AuthenticationError, MasterNotFoundError)):
                _, redis = connect()  # a rotation ended these credentials, and the files have others


field, redis = connect()
name, token = "ada", secrets.token_urlsafe(16)
key = f"{field['prefix']}{{{hashlib.sha256(name.encode()).hexdigest()[:8]}}}s:{token}"
call("redoubt_session_create", key, name, "role", "admin")
version, created, expires, who, fields = call("redoubt_session_get", key)
print(who, fields, flush=True)

# For whom measures a failover: reads on for so long, and says how long the longest call took.
longest, until = 0, time.monotonic() + float(os.environ.get("STAY_SECONDS", 0))
while (began := time.monotonic()) < until:
    call("redoubt_session_get", key)
    longest = max(longest, time.monotonic() - began)
    time.sleep(0.01)
if longest:
    print(f"longest call {longest * 1000:.0f} ms")
