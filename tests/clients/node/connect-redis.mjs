// connect-redis and express-session as an application has them, through Sentinel where the binding names some.
// Prints one line for each claim that held; the first that does not ends it.
import assert from "node:assert/strict";
import { readFileSync, existsSync } from "node:fs";
import express from "express";
import session from "express-session";
import { RedisStore } from "connect-redis";
import { createClient, createSentinel } from "redis";

const folder = `${process.env.SERVICE_BINDING_ROOT}/${process.argv[2]}`;
const field = (name) => readFileSync(`${folder}/${name}`, "utf8");
const held = (claim) => console.log(claim);
const user = { username: field("username"), password: field("password") };

function connect() {
  if (!existsSync(`${folder}/sentinels`)) return createClient({ ...user, socket: { host: field("host"), port: +field("port") } });
  const seeds = field("sentinels").split(",").map((seed) => ({ host: seed.split(":")[0], port: +seed.split(":")[1] }));
  return createSentinel({
    name: field("master-name"),
    sentinelRootNodes: seeds,
    nodeClientOptions: user,
    sentinelClientOptions: { username: field("sentinel-username"), password: field("sentinel-password") },
  });
}

const redis = connect();
redis.on("error", (error) => { throw error; });
await redis.connect();
const prefix = field("prefix");
const store = new RedisStore({ client: redis, prefix, ttl: 1800 });

const app = express();
app.use(session({ store, secret: "not a secret here", resave: false, saveUninitialized: false, name: "sid" }));
app.get("/login", (request, answer) => { request.session.user = "ada"; request.session.visits = 1; answer.json(request.sessionID); });
app.get("/read", (request, answer) => answer.json({ user: request.session.user, visits: request.session.visits }));
app.get("/visit", (request, answer) => { request.session.visits += 1; answer.json(request.session.visits); });
app.get("/logout", (request, answer) => request.session.destroy((error) => answer.json(error ? String(error) : "out")));
let slowBegan, mayEnd;
const slow = new Promise((resolve) => (slowBegan = resolve));
const gate = new Promise((resolve) => (mayEnd = resolve));
app.get("/slow", async (request, answer) => { slowBegan(); await gate; request.session.visits += 1; answer.json("late"); });
app.use((error, request, answer, next) => answer.status(500).json(String(error)));
const server = app.listen(0, "127.0.0.1");
await new Promise((resolve) => server.once("listening", resolve));

let cookie = "";
async function get(path) {
  const answer = await fetch(`http://127.0.0.1:${server.address().port}${path}`, { headers: { cookie } });
  const set = answer.headers.get("set-cookie");
  if (set) cookie = set.split(";")[0];
  return answer.json();
}

const id = await get("/login");
assert.equal(await redis.exists(prefix + id), 1);
held("created under the prefix");
assert.deepEqual(await get("/read"), { user: "ada", visits: 1 });
held("read back");
assert.equal(await get("/visit"), 2);
assert.deepEqual(await get("/read"), { user: "ada", visits: 2 });
held("changed");
await redis.expire(prefix + id, 100);
await get("/read");
assert.ok((await redis.ttl(prefix + id)) > 1700);
held("renewed by a read");

// The logout race: a request that began before the logout ends after it.
const late = get("/slow");
await slow;
assert.equal(await get("/logout"), "out");
assert.equal(await redis.exists(prefix + id), 0);
held("destroyed");
mayEnd();
await late;
assert.deepEqual(await get("/read"), { user: "ada", visits: 3 });
held("a late request brings the session back");
await get("/logout");
assert.deepEqual(await get("/read"), {});

await assert.rejects(redis.set("other:key", "x"), /NOPERM/);
await assert.rejects(redis.get("other:key"), /NOPERM/);
held("refused outside of the prefix");
// These walk the keys of all tenants, so they are refused (or, through Sentinel, the client has no scanIterator at all).
for (const walk of ["all", "ids", "length", "clear"]) await assert.rejects(store[walk](), /NOPERM|scanIterator is not a function/);
held("all, ids, length and clear refused");

server.close();
server.closeAllConnections();
await redis.close();
