// rate-limiter-flexible as an application has it, through Sentinel where the binding names some. SCRIPTS is set if
// its user may run them. Prints one line for each claim that held; the first that does not ends it.
import assert from "node:assert/strict";
import { readFileSync, existsSync } from "node:fs";
import limiters from "rate-limiter-flexible";
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
// The library puts the colon after the prefix.
const of = (kind, points, duration) =>
  new limiters[kind]({ storeClient: redis, useRedisPackage: true, keyPrefix: prefix.replace(/:$/, ""), points, duration });
// How many of these calls are admitted; an error of the store is one of ours.
async function admitted(calls) {
  const answers = await Promise.allSettled(calls);
  for (const { status, reason } of answers) if (status === "rejected" && reason instanceof Error) throw reason;
  return answers.filter(({ status }) => status === "fulfilled").length;
}
const subject = (name) => `${process.argv[2]}-${name}`;

async function threeOfFour(kind) {
  const limiter = of(kind, 3, 60);
  for (let call = 0; call < 3; call++) await limiter.consume(subject(kind));
  const denied = await limiter.consume(subject(kind)).then(() => null, (answer) => answer);
  assert.ok(denied.msBeforeNext > 50_000 && denied.msBeforeNext <= 60_000);
  assert.equal(await redis.exists(`${prefix}${subject(kind)}`), 1);
  return denied;
}

if (process.env.SCRIPTS) {
  const denied = await threeOfFour("RateLimiterRedis");
  held("three of four calls");
  const crowd = of("RateLimiterRedis", 10, 3600);
  assert.equal(await admitted(Array.from({ length: 64 }, () => crowd.consume(subject("crowd")))), 10);
  held("ten of 64 calls at once");
  assert.equal(denied.consumedPoints, 4);
  held("a denied call counts too");
} else {
  await assert.rejects(of("RateLimiterRedis", 3, 60).consume(subject("ada")), /NOPERM/);
  held("refused without scripts");
  await threeOfFour("RateLimiterRedisNonAtomic");
  held("RateLimiterRedisNonAtomic: three of four calls");
  const crowd = of("RateLimiterRedisNonAtomic", 10, 3600);
  assert.ok(await admitted(Array.from({ length: 64 }, () => crowd.consume(subject("crowd")))) > 10);
  held("RateLimiterRedisNonAtomic: more than ten of 64 calls at once");
}
const other = new limiters.RateLimiterRedis({ storeClient: redis, useRedisPackage: true, keyPrefix: "other", points: 3, duration: 60 });
await assert.rejects(other.consume("ada"), /NOPERM|No permissions|can't run this command|ACL failure/);
await assert.rejects(redis.set("other:key", "x"), /NOPERM/);
held("refused outside of the prefix");
await redis.close();
