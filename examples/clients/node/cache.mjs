// Reads through a cache, with the binding of a CacheNamespace. Needs: npm install redis
import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { createSentinel } from "redis";

const field = (name) => readFileSync(`${process.env.SERVICE_BINDING_ROOT}/cache/${name}`, "utf8");
const seeds = field("sentinels").split(",").map((seed) => seed.split(":"));
const socket = { connectTimeout: 500, reconnectStrategy: (tries) => Math.min(20 * 2 ** tries, 250) }; // milliseconds
const redis = await createSentinel({
  name: field("master-name"),
  sentinelRootNodes: seeds.map(([host, port]) => ({ host, port: Number(port) })),
  sentinelClientOptions: { username: field("sentinel-username"), password: field("sentinel-password"), socket },
  nodeClientOptions: { username: field("username"), password: field("password"), socket },
  commandOptions: { timeout: 1000 }, maxCommandRediscovers: 16, scanInterval: 1000,
}).on("error", console.error).connect();
const prefix = field("prefix");
const patience = 5000; // milliseconds to wait for what another caller computes
const copied = 10_000; // milliseconds for which a copy in this process is used at most
const call = (name, keys, ...args) => redis.fCall(name, { keys, arguments: args.map(String) });

// Says how a computation ended. A cache that is away now costs the next reader one: the answer is there without it.
const tell = (...words) => call(...words).catch(console.error);

export class SourceDown extends Error {}

// The value of a key; computed by this caller if it is the one that is told to.
export async function cached(key, compute, { tags = [], ttl = "" } = {}) {
  const deadline = performance.now() + patience;
  for (;;) {
    let reply;
    try {
      reply = await call("redoubt_cache_get", [key]);
    } catch {
      return compute(); // a cache that is away costs time, not answers: bound what reaches the source here
    }
    const [verdict, value, token = "", wait = 0] = reply;
    if (token) {
      let fresh;
      try {
        fresh = await compute();
      } catch (error) {
        await tell("redoubt_cache_fail", [key], token);
        if (verdict < 1) throw error;
        return value; // stale, and the next callers get it too
      }
      if (fresh === null) await tell("redoubt_cache_negative", [key], token, ...tags);
      else await tell("redoubt_cache_set", [key], token, fresh, ttl, ...tags); // 0: overtaken; the value is still ours to use
      return fresh;
    }
    if (verdict >= 1) return value;
    if (verdict === -2 || performance.now() > deadline) throw new SourceDown(key);
    await sleep(Math.min(wait, 20));
  }
}

// Copies in this process of what the cache said. A message removes one; what may have been missed removes all.
export class Copies {
  values = new Map();
  heard = [];

  async listen() {
    await redis.subscribe(field("channel"), (message) => {
      const [, run, number, kind, what] = message.match(/^(\d+) (\d+) (.) (.*)$/s);
      this.at(run, Number(number), kind === "k" ? what : "");
    });
    const ask = async () => this.at(...await redis.fCallRo("redoubt_caches_position", { keys: [], arguments: [prefix] }));
    await ask();
    setInterval(() => ask().catch(() => { this.values.clear(); this.heard = []; }), 5000).unref();
  }

  // What the last message, or the server now, says of itself.
  at(run, number, key) {
    const isNext = this.heard[0] === run && this.heard[1] + (key === undefined ? 0 : 1) === number;
    if (!isNext || key === "") this.values.clear();
    this.values.delete(key);
    this.heard = [run, number];
  }

  async get(key, compute, options) {
    const copy = this.values.get(key);
    if (copy && performance.now() < copy.until) return copy.value;
    const { heard } = this;
    const value = await cached(key, compute, options);
    // Else it may be from before an invalidation.
    if (heard.length && heard[0] === this.heard[0] && heard[1] === this.heard[1]) {
      this.values.set(key, { value, until: performance.now() + copied });
    }
    return value;
  }
}

const key = `${prefix}{0}node`;
let computed = 0;
const source = async () => `value ${++computed}`;
await Promise.all(Array.from({ length: 8 }, () => cached(key, source, { tags: ["shop"] })));
console.log(computed === 1 ? "one computed" : `${computed} computed`);

await call("redoubt_cache_invalidate_tag", [`${prefix}{0}`], "shop");
console.log(await cached(key, source, { tags: ["shop"], ttl: 20 }));
await sleep(50);
const down = async () => { throw new SourceDown("source"); };
console.log("stale", await cached(key, down), await cached(key, down));
await cached(`${key} gone`, down).catch((error) => error instanceof SourceDown && console.log("down"));

const copies = new Copies();
await copies.listen();
const other = `${prefix}{0}node copy`;
while (!copies.values.has(other)) await copies.get(other, async () => "copied");
await call("redoubt_cache_invalidate", [other]);
while (copies.values.has(other)) await sleep(10);
console.log("told");
while (!copies.values.has(other)) await copies.get(other, async () => "copied");
copies.at("1", 1, "another run");
console.log(copies.values.has(other) ? "missed" : "noticed");
await redis.close();
