"""Logs a user in to the session store of a binding. Needs: pip install redis"""
import hashlib, os, pathlib, secrets
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel

binding = pathlib.Path(os.environ["SERVICE_BINDING_ROOT"], "web")
field = {file.name: file.read_text() for file in binding.iterdir() if file.is_file()}
seeds = [(host, int(port)) for host, port in (seed.rsplit(":", 1) for seed in field["sentinels"].split(","))]
timeouts = {"socket_connect_timeout": 0.5, "socket_timeout": 1}  # seconds
sentinel_user = {"username": field["sentinel-username"], "password": field["sentinel-password"], **timeouts, "retry": Retry(NoBackoff(), 0)}
user = {"username": field["username"], "password": field["password"], "decode_responses": True, **timeouts}
user["retry"] = Retry(ExponentialBackoff(base=0.02, cap=0.25), 10)
redis = Sentinel(seeds, sentinel_kwargs=sentinel_user, **user).master_for(field["master-name"])

name, token = "ada", secrets.token_urlsafe(16)
key = f"{field['prefix']}{{{hashlib.sha256(name.encode()).hexdigest()[:8]}}}s:{token}"
redis.fcall("redoubt_session_create", 1, key, name, "role", "admin")
version, created, expires, who, fields = redis.fcall("redoubt_session_get", 1, key)
print(who, fields)
