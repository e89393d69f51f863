"""Flask-Session as an application has it. Prints one line for each claim that held; the first that does not ends it."""

from binding import client, field, held
from flask import Flask, session
from flask_session import Session
from redis.exceptions import NoPermissionError

redis = client()
prefix = field("prefix")
app = Flask(__name__)
app.config.update(SESSION_TYPE="redis", SESSION_REDIS=redis, SESSION_KEY_PREFIX=prefix, PERMANENT_SESSION_LIFETIME=1800)
Session(app)


@app.get("/login")
def login():
    session["user"] = "ada"
    session["visits"] = 1
    return session.sid


@app.get("/read")
def read():
    return {"user": session.get("user"), "visits": session.get("visits")}


@app.get("/visit")
def visit():
    session["visits"] += 1
    return str(session["visits"])


@app.get("/slow")
def slow():
    # The same user logs out elsewhere while this request is under way, which changes nothing.
    elsewhere.get("/logout")
    assert redis.exists(key) == 0
    held("destroyed")
    return "late"


@app.get("/logout")
def logout():
    session.clear()
    return "out"


browser = app.test_client()
key = prefix + browser.get("/login").text
assert redis.exists(key) == 1
held("created under the prefix")
assert browser.get("/read").json == {"user": "ada", "visits": 1}
held("read back")
assert browser.get("/visit").text == "2"
assert browser.get("/read").json == {"user": "ada", "visits": 2}
held("changed")
redis.expire(key, 100)
browser.get("/read")
assert redis.ttl(key) > 1700
held("renewed by a read")

# The cookie is the name of the key, without a signature: who sees key names can log in.
elsewhere = app.test_client()
elsewhere.set_cookie("session", key.removeprefix(prefix))
assert elsewhere.get("/read").json == {"user": "ada", "visits": 2}
held("the name of the key logs in")

browser.get("/slow")
assert browser.get("/read").json == {"user": "ada", "visits": 2}
held("a late request brings the session back")
browser.get("/logout")
assert redis.exists(key) == 0

for command in (lambda: redis.set("other:key", "x"), lambda: redis.get("other:key")):
    try:
        command()
    except NoPermissionError:
        continue
    raise AssertionError("a key outside of the prefix was served")
held("refused outside of the prefix")
