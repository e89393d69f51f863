// Limits how often a subject may do something, with the binding of a RateLimitPolicy. Needs: npm install redis
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { createSentinel } from "redis";

const field = (name) => readFileSync(`${process.env.SERVICE_BINDING_ROOT}/limits/${name}`, "utf8");
const seeds = field("sentinels").split(",").map((seed) => seed.split(":"));
const redis = await createSentinel({
  name: field("master-name"),
  sentinelRootNodes: seeds.map(([host, port]) => ({ host, port: Number(port) })),
  sentinelClientOptions: { username: field("sentinel-username"), password: field("sentinel-password") },
  nodeClientOptions: { username: field("username"), password: field("password") },
}).on("error", console.error).connect();
const [prefix, onStoreError] = [field("prefix"), field("on-store-error")];
const quotas = JSON.parse(field("limits"))
  // w is in whole seconds, and may be left out.
  .map(({ name, quota, windowMilliseconds: w }) => `"${name}";q=${quota}` + (w % 1000 ? "" : `;w=${w / 1000}`)).join(", ");
const denied = new Map(); // subject -> [until when, headers]
// A layer that is slow is one that fails: after this many milliseconds `on-store-error` decides.
const deadline = 1000 * Number(process.env.LIMIT_DEADLINE ?? 0.05);
const inTime = (promise) => Promise.race([promise,
  new Promise((_, reject) => setTimeout(() => reject(new Error("the layer is slow")), deadline).unref())]);

// Whether a request is allowed, and the headers of its response (draft-ietf-httpapi-ratelimit-headers-10).
export async function limit(subject, cost = 1) {
  const [until, known] = denied.get(subject) ?? [0];
  if (performance.now() < until) return [false, known];
  let reply;
  try {
    reply = await inTime(redis.fCall("redoubt_limit", { keys: [`${prefix}{${subject}}`], arguments: [String(cost)] }));
  } catch {
    return [onStoreError === "Allow", {}];
  }
  const [allowed, , left, reset, retry, name] = reply;
  const headers = { "RateLimit-Policy": quotas, "RateLimit": `"${name}";r=${left};t=${Math.ceil(reset / 1000)}` };
  if (!allowed && retry > 0) {
    headers["Retry-After"] = String(Math.max(1, Math.ceil(retry / 1000)));
    denied.set(subject, [performance.now() + retry, headers]);
  }
  return [allowed !== 0, headers];
}

for await (const line of createInterface({ input: process.stdin })) {
  const [allowed, headers] = await limit(line.trim());
  console.log(JSON.stringify({ allowed, ...headers }));
}
await redis.close();
