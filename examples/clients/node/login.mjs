// Logs a user in to the session store of a binding. Needs: npm install redis
import { createHash, randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { createClient, ErrorReply } from "redis";

const field = (name) => readFileSync(`${process.env.SERVICE_BINDING_ROOT}/web/${name}`, "utf8");
const inTime = (answer) => Promise.race([answer, sleep(1000, null, { ref: false }).then(() => { throw new Error("no answer"); })]);

// A connection to one server. It ends with that server: the next one may be another.
async function open([host, port], kind) {
  const socket = { host, port: Number(port), connectTimeout: 500, reconnectStrategy: false }; // milliseconds
  const user = { username: field(`${kind}username`), password: field(`${kind}password`) };
  const client = createClient({ ...user, socket }).on("error", () => {}); // the call that fails has it
  return inTime(client.connect()).catch((error) => { end(client); throw error; });
}
const end = (client) => { if (client.isOpen) client.destroy(); };

// A connection to the primary, of the first Sentinel that names one. createSentinel would pause for a second at each that names none.
async function connect() {
  let failed;
  for (const seed of field("sentinels").split(",")) {
    try {
      const sentinel = await open(seed.split(":"), "sentinel-");
      const asked = sentinel.sendCommand(["SENTINEL", "GET-MASTER-ADDR-BY-NAME", field("master-name")]);
      return await open(await inTime(asked).finally(() => end(sentinel)), "");
    } catch (error) {
      failed = error;
    }
  }
  throw failed;
}

let redis = connect();

// Calls a function, again and again for up to 8 s while the primary moves. Each connection reads the binding: a rotation may have renewed it.
async function call(name, key, ...values) {
  for (const until = Date.now() + 8000; ;) {
    const used = redis;
    try {
      return await inTime((await used).fCall(name, { keys: [key], arguments: values }));
    } catch (error) {
      const passes = !(error instanceof ErrorReply) || /^(READONLY|NOREPLICAS|LOADING|WRONGPASS|NOAUTH)/.test(error.message);
      if (!passes || Date.now() > until) throw error;
      await sleep(50);
      if (redis !== used) continue; // another call has connected again
      used.then(end, () => {});
      redis = connect();
    }
  }
}

const user = "ada", token = randomBytes(16).toString("base64url");
const key = `${field("prefix")}{${createHash("sha256").update(user).digest("hex").slice(0, 8)}}s:${token}`;
await call("redoubt_session_create", key, user, "role", "admin");
const [version, created, expires, who, fields] = await call("redoubt_session_get", key);
console.log(who, fields);

// For whom measures a failover: reads on for so long, and says how long the longest call took.
const until = performance.now() + 1000 * (process.env.STAY_SECONDS ?? 0);
let longest = 0;
while (performance.now() < until) {
  const began = performance.now();
  await call("redoubt_session_get", key);
  longest = Math.max(longest, performance.now() - began);
  await sleep(10);
}
if (longest) console.log(`longest call ${longest.toFixed()} ms`);
await (await redis).close();
