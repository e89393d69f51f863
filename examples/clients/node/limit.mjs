// Limits how often a subject may do something, with the binding of a RateLimitPolicy. Needs: npm install redis
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { createSentinel } from "redis";

const field = (name) => readFileSync(`${process.env.SERVICE_BINDING_ROOT}/limits/${name}`, "utf8");
const seeds = field("sentinels").split(",").map((seed) => seed.split(":"));
const socket = { connectTimeout: 500, reconnectStrategy: (tries) => Math.min(20 * 2 ** tries, 250) }; // milliseconds
const redis = await createSentinel({
  name: field("master-name"),
  sentinelRootNodes: seeds.map(([host, port]) => ({ host, port: Number(port) })),
  sentinelClientOptions: { username: field("sentinel-username"), password: field("sentinel-password"), socket },
  nodeClientOptions: { username: field("username"), password: field("password"), socket },
  commandOptions: { timeout: 1000 }, maxCommandRediscovers: 16, scanInterval: 1000,
}).on("error", console.error).connect();
const [prefix, onStoreError, shards] = [field("prefix"), field("on-store-error"), Number(field("shards"))];
const quotas = JSON.parse(field("limits"))
  // w is in whole seconds, and may be left out.
  .map(({ name, quota, windowMilliseconds: w }) => `"${name}";q=${quota}` + (w % 1000 ? "" : `;w=${w / 1000}`)).join(", ");
const denied = new Map(); // key -> [cost, when it was told, reply]
const REMEMBERED = 1000; // denials at most: beyond them all are forgotten, and the layer is asked again
// A layer that is slow is one that fails: after this many milliseconds `on-store-error` decides.
const deadline = 1000 * Number(process.env.LIMIT_DEADLINE ?? 0.05);
const inTime = (promise) => Promise.race([promise,
  new Promise((_, reject) => setTimeout(() => reject(new Error("the layer is slow")), deadline).unref())]);

// The headers of a response, by a reply that is `age` milliseconds old (draft-ietf-httpapi-ratelimit-headers-10).
function headersOf([allowed, , left, reset, retry, name], age) {
  const headers = { "RateLimit-Policy": quotas, "RateLimit": `"${name}";r=${left * shards};t=${Math.ceil((reset - age) / 1000)}` };
  // -1: the cost is above what ever fits.
  if (!allowed && retry > 0) headers["Retry-After"] = String(Math.ceil((retry - age) / 1000));
  return headers;
}

// Whether a request is allowed, and the headers of its response.
export async function limit(subject, cost = 1) {
  const shard = shards > 1 ? `:${Math.floor(Math.random() * shards)}` : "";
  const key = `${prefix}{${subject}${shard}}`;
  const [deniedCost, told, known] = denied.get(key) ?? [];
  const age = performance.now() - told;
  if (known && cost >= deniedCost && age < known[4]) return [false, headersOf(known, age)];
  let reply;
  try {
    reply = await inTime(redis.fCall("redoubt_limit", { keys: [key], arguments: [String(cost)] }));
  } catch {
    return [onStoreError === "Allow", {}];
  }
  if (!reply[0] && reply[4] > 0) {
    if (denied.size >= REMEMBERED) denied.clear();
    denied.set(key, [cost, performance.now(), reply]);
  }
  return [reply[0] !== 0, headersOf(reply, 0)];
}

for await (const line of createInterface({ input: process.stdin })) {
  const [, cost, subject] = /^(\d+) (.*)$/.exec(line);
  const [allowed, headers] = await limit(subject, Number(cost));
  console.log(JSON.stringify({ allowed, ...headers }));
}
await redis.close();
