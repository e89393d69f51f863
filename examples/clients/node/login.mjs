// Logs a user in to the session store of a binding. Needs: npm install redis
import { createHash, randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { createSentinel } from "redis";

const field = (name) => readFileSync(`${process.env.SERVICE_BINDING_ROOT}/web/${name}`, "utf8");
const seeds = field("sentinels").split(",").map((seed) => seed.split(":"));
const socket = { connectTimeout: 500, reconnectStrategy: (tries) => Math.min(20 * 2 ** tries, 250) }; // milliseconds
const redis = await createSentinel({
  name: field("master-name"),
  sentinelRootNodes: seeds.map(([host, port]) => ({ host, port: Number(port) })),
  sentinelClientOptions: { username: field("sentinel-username"), password: field("sentinel-password"), socket },
  nodeClientOptions: { username: field("username"), password: field("password"), socket },
  commandOptions: { timeout: 1000 }, maxCommandRediscovers: 16, scanInterval: 1000,
}).on("error", console.error).connect();

const user = "ada", token = randomBytes(16).toString("base64url");
const key = `${field("prefix")}{${createHash("sha256").update(user).digest("hex").slice(0, 8)}}s:${token}`;
await redis.fCall("redoubt_session_create", { keys: [key], arguments: [user, "role", "admin"] });
const [version, created, expires, who, fields] = await redis.fCall("redoubt_session_get", { keys: [key], arguments: [] });
console.log(who, fields);

// For whom measures a failover: reads on for so long, and says how long the longest call took.
const until = performance.now() + 1000 * (process.env.STAY_SECONDS ?? 0);
let longest = 0;
while (performance.now() < until) {
  const began = performance.now();
  await redis.fCall("redoubt_session_get", { keys: [key], arguments: [] });
  longest = Math.max(longest, performance.now() - began);
  await new Promise((resolve) => setTimeout(resolve, 10));
}
if (longest) console.log(`longest call ${longest.toFixed()} ms`);
await redis.close();
