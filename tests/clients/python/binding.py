"""What the binding Secret says, and a client made of it with redis-py alone."""

import os
import pathlib
import sys

from redis import Redis
from redis.sentinel import Sentinel

FOLDER = pathlib.Path(os.environ["SERVICE_BINDING_ROOT"], sys.argv[1])


def field(name):
    return (FOLDER / name).read_text()


def has_sentinels():
    return (FOLDER / "sentinels").exists()


def seeds():
    return [(host, int(port)) for host, port in (seed.rsplit(":", 1) for seed in field("sentinels").split(","))]


def user():
    return {"username": field("username"), "password": field("password")}


def sentinel_user():
    return {"username": field("sentinel-username"), "password": field("sentinel-password")}


def client():
    if not has_sentinels():
        return Redis(host=field("host"), port=int(field("port")), **user())
    return Sentinel(seeds(), sentinel_kwargs=sentinel_user(), **user()).master_for(field("master-name"))


def held(claim):
    print(claim, flush=True)
