"""Copies keys of any Redis or Valkey to another, with plain commands. Needs: pip install redis

  SOURCE=redis://:password@old:6379/0 TARGET=redis://app:password@web-redis.shop:6379/0 python copy.py

The URL of a binding is its field `uri`. Both are variables, so that no password is an argument. Can be run again: each key is written
as the source has it now.

  --from-prefix P   copy keys that begin with P only
  --to-prefix Q     write Q in place of P
  --delete-missing  delete keys of the target (below Q) that the source does not have; the target's user must be able to SCAN

Not copied: consumer groups of streams, TTLs of single hash fields, functions, other databases than the one that the URL names.
"""
import argparse, collections, itertools, os
import redis

CHUNK = 1000  # elements of one command: a large key is written in parts


def chunks(elements):
    elements = iter(elements)
    while chunk := list(itertools.islice(elements, CHUNK)):
        yield chunk


def copy(source, target, key, name):
    """Copies a key under a name, in one transaction at the target. Answers its type; None if it is gone."""
    kind = source.type(key).decode()
    write = target.pipeline(transaction=True)
    write.delete(name)
    if kind == "string":
        value = source.get(key)
        if value is None:
            return None
        write.set(name, value)
    elif kind == "hash":
        for part in chunks(source.hscan_iter(key, count=CHUNK)):
            write.hset(name, mapping=dict(part))
    elif kind == "list":
        for part in chunks(source.lrange(key, 0, -1)):
            write.rpush(name, *part)
    elif kind == "set":
        for part in chunks(source.sscan_iter(key, count=CHUNK)):
            write.sadd(name, *part)
    elif kind == "zset":
        for part in chunks(source.zscan_iter(key, count=CHUNK)):
            write.zadd(name, dict(part))
    elif kind == "stream":
        for entry, fields in source.xrange(key):
            write.xadd(name, fields, id=entry)
    elif kind == "none":
        return None
    else:
        raise SystemExit(f"{key!r} is of type {kind}, which this program does not copy")
    left = source.pttl(key)
    if left == -2:
        return None
    if left >= 0:
        write.pexpire(name, max(left, 1))
    write.execute()
    return kind


def pattern(prefix):
    """Matches names that begin with a prefix."""
    return b"".join(b"\\" + bytes([byte]) if byte in b"*?[]^\\" else bytes([byte]) for byte in prefix) + b"*"


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--from-prefix", default="", type=os.fsencode)
    arguments.add_argument("--to-prefix", default=None, type=os.fsencode)
    arguments.add_argument("--delete-missing", action="store_true")
    arguments = arguments.parse_args()
    old = arguments.from_prefix or b""
    new = old if arguments.to_prefix is None else arguments.to_prefix
    source, target = redis.from_url(os.environ["SOURCE"]), redis.from_url(os.environ["TARGET"])
    copied = collections.Counter()
    for key in source.scan_iter(match=pattern(old), count=CHUNK):
        kind = copy(source, target, key, new + key[len(old):])
        copied[kind or "gone meanwhile"] += 1
    if arguments.delete_missing:
        for name in list(target.scan_iter(match=pattern(new), count=CHUNK)):
            if not source.exists(old + name[len(new):]):
                target.delete(name)
                copied["deleted"] += 1
    print(", ".join(f"{count} {kind}" for kind, count in sorted(copied.items())) or "nothing to copy")


if __name__ == "__main__":
    main()
