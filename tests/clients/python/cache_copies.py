"""Keeps copies as examples/clients/python/cache.py does, over a way to the server that a test cuts.

Takes the address of the way, or asks Sentinel without one; answers each line: `source VALUE` is what the source says from now on, `read KEY`, `copied KEY`.
"""
import sys

sys.path.insert(0, "examples/clients/python")
import cache
from redis import Redis

if sys.argv[1:]:
    host, port = sys.argv[1].rsplit(":", 1)
    cache.redis = Redis(host=host, port=int(port), **cache.user)
copies = cache.Copies()
source = ""
for line in sys.stdin:
    word, what = line.rstrip("\n").split(" ", 1)
    if word == "source":
        source = answer = what
    elif word == "read":
        answer = copies.get(what, lambda: source)
    else:
        answer = "yes" if what in copies.values else "no"
    print(answer, flush=True)
