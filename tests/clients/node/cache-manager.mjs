// cache-manager and Keyv on @keyv/redis as an application has them, through Sentinel where the binding names some.
// Prints one line for each claim that held; the first that does not ends it.
import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import KeyvRedis, { createClient, createSentinel } from "@keyv/redis";
import { createCache } from "cache-manager";
import { Keyv } from "keyv";

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
await redis.connect();
const prefix = field("prefix");
// Keys are NAMESPACE, the separator and the name, so the colon of the cache's prefix is Keyv's.
const namespace = prefix.slice(0, -1);
const store = new KeyvRedis(redis, { namespace, keyPrefixSeparator: ":", throwOnErrors: true });
const keyv = new Keyv({ store, namespace, useKeyPrefix: false, throwOnErrors: true });
const errors = [];
keyv.on("error", (error) => errors.push(error));
const cache = createCache({ stores: [keyv], ttl: 300_000 });

await cache.set("page", { title: "one" });
assert.equal(await redis.exists(`${prefix}page`), 1);
assert.deepEqual(await cache.get("page"), { title: "one" });
held("set and read under the prefix");
const left = await redis.pTTL(`${prefix}page`);
assert(left > 290_000 && left <= 300_000, String(left));
held("every key ends");
await cache.mset([{ key: "a", value: 1 }, { key: "b", value: 2 }]);
assert.deepEqual(await cache.mget(["a", "b", "c"]), [1, 2, undefined]);
await cache.mdel(["a", "b"]);
assert.equal(await cache.wrap("wrapped", async () => "computed"), "computed");
assert.equal(await cache.wrap("wrapped", async () => "again"), "computed");
await cache.del("page");
assert.equal(await cache.get("page"), undefined);
held("many, wrap, del");
await cache.set("page", "old");
assert.equal(await cache.get("page"), "old");
held("a late set brings back what was invalidated");

async function isRefused(call) {
  const before = errors.length;
  const thrown = await call().then(() => undefined, (error) => error);
  const found = thrown ?? errors[before];
  // A client of Sentinels has no scan at all.
  assert.match(String(found), /NOPERM|scan is not a function/);
}
await isRefused(() => cache.clear());
assert.equal(await cache.get("page"), "old");
held("clear is refused, and nothing is gone");
await assert.rejects(redis.get("other:key"), /NOPERM/);
held("refused outside of the prefix");
await redis.close();
