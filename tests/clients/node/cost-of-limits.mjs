// Calls per second of rate-limiter-flexible, of the functions that do the same, or of INCR. Arguments: binding, way, connections, calls.
import { readFileSync } from "node:fs";
import limiters from "rate-limiter-flexible";
import { createClient } from "redis";

const [binding, way, connections, calls] = [process.argv[2], process.argv[3], Number(process.argv[4]), Number(process.argv[5])];
const field = (name) => readFileSync(`${process.env.SERVICE_BINDING_ROOT}/${binding}/${name}`, "utf8");

async function caller() {
  const socket = { host: field("host"), port: Number(field("port")) };
  const redis = await createClient({ username: field("username"), password: field("password"), socket }).connect();
  const of = {
    incr: () => (subject) => redis.incr(`rate:i:${subject}`),
    flexible: () => {
      const limiter = new limiters.RateLimiterRedis({ storeClient: redis, useRedisPackage: true, keyPrefix: "rate:flexible", points: 10_000, duration: 3600 });
      return (subject) => limiter.consume(subject);
    },
  }[way] ?? (() => (subject) => redis.fCall("redoubt_limit", { keys: [`rate:${way.at(-1)}:{${subject}}`], arguments: [] }));
  return { redis, call: of() };
}

const callers = await Promise.all(Array.from({ length: connections }, caller));
await Promise.all(callers.map(({ call }) => call("0")));
const began = performance.now();
await Promise.all(callers.map(async ({ call }, first) => {
  for (let at = first; at < calls; at += connections) await call(String((at * 7) % 5000));
}));
console.log(Math.round((calls / (performance.now() - began)) * 1000));
await Promise.all(callers.map(({ redis }) => redis.close()));
