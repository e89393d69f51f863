"""Logs a user in to the session store of a binding. Needs: pip install redis"""
import hashlib, os, pathlib, secrets
from redis.sentinel import Sentinel

binding = pathlib.Path(os.environ["SERVICE_BINDING_ROOT"], "web")
field = {file.name: file.read_text() for file in binding.iterdir() if file.is_file()}
seeds = [(host, int(port)) for host, port in (seed.rsplit(":", 1) for seed in field["sentinels"].split(","))]
sentinel_user = {"username": field["sentinel-username"], "password": field["sentinel-password"]}
user = {"username": field["username"], "password": field["password"], "decode_responses": True}
redis = Sentinel(seeds, sentinel_kwargs=sentinel_user, **user).master_for(field["master-name"])

name, token = "ada", secrets.token_urlsafe(16)
key = f"{field['prefix']}{{{hashlib.sha256(name.encode()).hexdigest()[:8]}}}s:{token}"
redis.fcall("redoubt_session_create", 1, key, name, "role", "admin")
version, created, expires, who, fields = redis.fcall("redoubt_session_get", 1, key)
print(who, fields)
