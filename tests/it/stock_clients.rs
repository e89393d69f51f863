//! Applications' own clients on each engine, as the user of a session store and with what its binding says: stock session
//! libraries under the prefix with plain commands, and the examples that call the session functions.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use redis::cmd;
use redoubt::dataplane::{cache_library, limit_library, load, session_library};
use redoubt::model::UseKind;
use redoubt::model::cache_policy::CachePolicy;
use redoubt::model::function_library::Functions;
use redoubt::model::limit_policy::{Algorithm, Limit, LimitMode, LimitPolicy, LimitPolicyDraft};
use redoubt::model::{OnExceed, SessionPolicy};
use redoubt::redis::rights::Grant;
use redoubt::redis::users::{self, PasswordDigests, acl_file, data_users, sentinel_users};
use redoubt::redis::{Connection, Error};
use sha2::{Digest as _, Sha256};
use tokio::process::Command;

use crate::support::cache_calls::{HOUR, policy};
use crate::support::engine_process::{Engine, PORT, Process, engines};
use crate::support::eventually;

const MASTER: &str = "web-1234";
const STORE_USER: &str = "shop-web";
const PREFIX: &str = "web:";
/// Of a cache.
const CHANNEL: &str = "cache:invalidate:web:";
/// Reads what the servers counted; no user of Redoubt may.
const OBSERVER: &str = "observer";
const SOON: Duration = Duration::from_secs(30);
/// A JVM on a busy machine of two cores, with room.
const PROGRAM_ENDS: Duration = Duration::from_mins(2);

const CONNECT_REDIS: &[&str] = &[
    "created under the prefix",
    "read back",
    "changed",
    "renewed by a read",
    "destroyed",
    "a late request brings the session back",
    "refused outside of the prefix",
    "all, ids, length and clear refused",
];
const FLASK_SESSION: &[&str] = &[
    "created under the prefix",
    "read back",
    "changed",
    "renewed by a read",
    "the name of the key logs in",
    "destroyed",
    "a late request brings the session back",
    "refused outside of the prefix",
];
const DJANGO_REDIS: &[&str] = &[
    "created under the prefix",
    "read back",
    "changed",
    "not renewed by a read",
    "renewed by a save",
    "a change is lost to another of the same time",
    "destroyed",
    "a late request is told that the session is gone",
    "a logout between its look and its write is undone",
    "refused outside of the prefix",
];
const SPRING_SESSION: &[&str] = &[
    // RedisSessionRepository
    "created under the prefix",
    "read back",
    "changed, field by field",
    "renewed by a request",
    "moved to another id",
    "destroyed",
    "a late request is told that the session is gone",
    // RedisIndexedSessionRepository
    "created under the prefix",
    "read back",
    "changed, field by field",
    "renewed by a request",
    "moved to another id",
    "found by user",
    "destroyed",
    "a late request keeps the data of a session that is gone",
    "a late request leaves half a session behind",
    "the index keeps a session that is gone",
    "events of expiry refused",
    "refused outside of the prefix",
];

fn password(user: &str) -> String {
    format!("password-of-{user}")
}

fn digest(user: &str) -> String {
    Sha256::digest(password(user)).iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"))
}

fn digests() -> PasswordDigests {
    PasswordDigests {
        operator: digest(users::OPERATOR),
        agent: digest(users::AGENT),
        replication: digest(users::REPLICATION),
        sentinel: digest(users::SENTINEL),
        application: None,
    }
}

/// A primary, its replica and a Sentinel, with the users of a layer and of one session store.
struct Layer {
    primary: Process,
    _replica: Process,
    sentinel: Process,
    observer: Connection,
    bindings: PathBuf,
}

impl Layer {
    async fn start(engine: &Engine) -> Self {
        Self::start_for(engine, UseKind::SessionStore).await
    }

    async fn start_for(engine: &Engine, kind: UseKind) -> Self {
        let mut users = data_users(&digests());
        users.insert(
            STORE_USER.to_owned(),
            users::use_on_data(
                Grant { kind, prefix: PREFIX, scripts: false, functions: &Functions::new() },
                &digest(STORE_USER),
            ),
        );
        let mut lines: Vec<String> = acl_file(&users).lines().map(str::to_owned).collect();
        lines.push(format!("user {OBSERVER} reset on >{} ~* &* +@all", password(OBSERVER)));
        lines.push(format!("masteruser {}", users::REPLICATION));
        lines.push(format!("masterauth {}", password(users::REPLICATION)));
        let primary = Process::start(engine, false, |_| lines.clone()).await;
        let replica = Process::start(engine, false, |_| lines).await;
        let observer = connect(&primary, OBSERVER).await;
        replica.follow(&connect(&replica, users::OPERATOR).await, &primary).await;
        let sentinel = Self::sentinel(engine, &primary).await;
        let bindings = primary.folder.join("bindings");
        let layer = Self { primary, _replica: replica, sentinel, observer, bindings };
        layer.bind();
        layer
    }

    async fn sentinel(engine: &Engine, primary: &Process) -> Process {
        let mut users = sentinel_users(&digests());
        users.insert(STORE_USER.to_owned(), users::use_on_sentinel(&digest(STORE_USER)));
        let monitored = primary.address.clone();
        let sentinel = Process::start(engine, true, |address| {
            let mut lines = vec![
                format!("sentinel monitor {MASTER} {monitored} {PORT} 1"),
                format!("sentinel down-after-milliseconds {MASTER} 5000"),
                format!("sentinel auth-user {MASTER} {}", users::SENTINEL),
                format!("sentinel auth-pass {MASTER} {}", password(users::SENTINEL)),
                format!("sentinel announce-ip {address}"),
                format!("sentinel announce-port {PORT}"),
            ];
            lines.extend(acl_file(&users).lines().map(str::to_owned));
            lines
        })
        .await;
        let operator = connect(&sentinel, users::OPERATOR).await;
        eventually("the Sentinel knows the replica", SOON, async || {
            let replicas: Result<Vec<BTreeMap<String, String>>, Error> =
                operator.query(cmd("SENTINEL").arg("REPLICAS").arg(MASTER)).await;
            replicas.is_ok_and(|replicas| replicas.len() == 1)
        })
        .await;
        sentinel
    }

    /// The binding Secret as a pod sees it: `web` through Sentinel, `direct` without.
    fn bind(&self) {
        let (host, secret) = (self.primary.address.as_str(), password(STORE_USER));
        let (port, uri) = (PORT.to_string(), format!("redis://{STORE_USER}:{secret}@{host}:{PORT}/0"));
        let seeds = format!("{}:{PORT}", self.sentinel.address);
        let direct = [
            ("type", "redis"),
            ("provider", "redoubt"),
            ("host", host),
            ("port", &port),
            ("username", STORE_USER),
            ("password", &secret),
            ("uri", &uri),
            ("max-connections", "64"),
            ("prefix", PREFIX),
        ];
        let sentinel = [
            ("sentinels", seeds.as_str()),
            ("sentinel-username", STORE_USER),
            ("sentinel-password", &secret),
            ("master-name", MASTER),
        ];
        let limits = [
            ("limits", r#"[{"name":"minute","quota":3,"windowMilliseconds":60000,"burst":3}]"#),
            ("on-store-error", "Allow"),
            ("shards", "1"),
        ];
        let cache = [("channel", CHANNEL)];
        for (name, fields) in [
            ("direct", direct.to_vec()),
            ("web", [direct.as_slice(), &sentinel].concat()),
            ("limits", [direct.as_slice(), &sentinel, &limits].concat()),
            ("cache", [direct.as_slice(), &sentinel, &cache].concat()),
        ] {
            let folder = self.bindings.join(name);
            fs::create_dir_all(&folder).unwrap();
            for (field, value) in fields {
                fs::write(folder.join(field), value).unwrap();
            }
        }
    }

    /// Runs a program with the bindings and answers its lines.
    async fn run(&self, mut command: Command) -> Vec<String> {
        command.env("SERVICE_BINDING_ROOT", &self.bindings).kill_on_drop(true);
        let ended = tokio::time::timeout(PROGRAM_ENDS, command.output()).await;
        let output = ended.unwrap_or_else(|_| panic!("does not end: {command:?}")).unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{command:?}\n{out}{err}");
        out.lines().map(str::to_owned).collect()
    }

    async fn keys(&self) -> Vec<String> {
        self.observer.query(cmd("KEYS").arg("*")).await.unwrap()
    }

    /// Runs a library's program directly and through Sentinel: it holds these claims, and leaves no key outside of the prefix.
    async fn claims(&self, engine: &Engine, program: impl Fn() -> Command, claims: &[&str]) {
        for binding in ["direct", "web"] {
            let mut command = program();
            command.arg(binding);
            assert_eq!(self.run(command).await, claims, "{} {binding}", engine.name);
        }
        let keys = self.keys().await;
        assert!(keys.iter().all(|key| key.starts_with(PREFIX)), "{keys:?}");
    }
}

async fn connect(process: &Process, user: &str) -> Connection {
    Connection::open(&process.endpoint(user, &password(user))).await.unwrap()
}

/// Where what a language's programs need is; fetched if it is not there.
pub async fn installed(language: &str) -> PathBuf {
    let output = Command::new("tests/clients/install").stderr(Stdio::inherit()).output().await.unwrap();
    assert!(output.status.success(), "tests/clients/install failed");
    let text = String::from_utf8(output.stdout).unwrap();
    let folder = text.lines().find_map(|line| line.strip_prefix(&format!("{language}=")));
    folder.unwrap_or_else(|| panic!("no folder for {language}: {text}")).into()
}

/// The program of an example of this package. Built only if its source is newer: cargo would wait for whoever else builds.
async fn built_example(name: &str, source: &str) -> PathBuf {
    let this_test = std::env::current_exe().unwrap();
    let program = this_test.parent().unwrap().parent().unwrap().join("examples").join(name);
    let written = |path: &Path| fs::metadata(path).and_then(|file| file.modified()).ok();
    if written(&program) < written(Path::new(source)).max(written(Path::new("Cargo.lock"))) {
        let status =
            Command::new(env!("CARGO")).args(["build", "--quiet", "--locked", "--example", name]).status().await;
        assert!(status.unwrap().success(), "example {name} does not build");
    }
    program
}

/// A module read from standard input finds its packages in the folder in which it runs.
fn node(folder: &Path, source: &str) -> Command {
    let mut command = Command::new("node");
    command.args(["--input-type=module", "-"]).current_dir(folder).stdin(fs::File::open(source).unwrap());
    command
}

pub fn python(folder: &Path, source: &str) -> Command {
    let mut command = Command::new(folder.join("venv/bin/python"));
    command.arg(source).env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

/// Short-lived: what it saves by not optimizing is more than what it loses.
fn java(folder: &Path, source: &str) -> Command {
    let mut command = Command::new("java");
    command.args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp"]);
    command.arg(format!("{}/lib/*", folder.display())).arg(source);
    command
}

#[tokio::test]
async fn connect_redis_works_under_a_prefix() {
    let folder = installed("node").await;
    for engine in engines() {
        let layer = Layer::start(&engine).await;
        layer.claims(&engine, || node(&folder, "tests/clients/node/connect-redis.mjs"), CONNECT_REDIS).await;
    }
}

#[tokio::test]
async fn flask_session_and_django_redis_work_under_a_prefix() {
    let folder = installed("python").await;
    for engine in engines() {
        let layer = Layer::start(&engine).await;
        layer.claims(&engine, || python(&folder, "tests/clients/python/with_flask_session.py"), FLASK_SESSION).await;
        layer.claims(&engine, || python(&folder, "tests/clients/python/with_django_redis.py"), DJANGO_REDIS).await;
    }
}

#[tokio::test]
async fn spring_session_works_under_a_prefix() {
    let folder = installed("java").await;
    for engine in engines() {
        let layer = Layer::start(&engine).await;
        layer.claims(&engine, || java(&folder, "tests/clients/java/SpringSession.java"), SPRING_SESSION).await;
    }
}

#[tokio::test]
async fn the_examples_log_a_user_in_with_the_binding() {
    let (of_node, of_python, of_go) = (installed("node").await, installed("python").await, installed("go").await);
    let of_java = installed("java").await;
    let of_rust = built_example("login", "examples/clients/rust/login.rs").await;
    let policy = SessionPolicy {
        store: "shop/web".to_owned(),
        generation: 1,
        prefix: PREFIX.to_owned(),
        idle_timeout_milliseconds: 1_800_000,
        absolute_lifetime_milliseconds: 3_600_000,
        touch_interval_milliseconds: 60_000,
        max_per_user: None,
        on_exceed: OnExceed::EvictOldest,
    };
    for engine in engines() {
        let layer = Layer::start(&engine).await;
        let operator = connect(&layer.primary, users::OPERATOR).await;
        load(&operator, &session_library(std::slice::from_ref(&policy))).await.unwrap();
        let programs = [
            (python(&of_python, "examples/clients/python/login.py"), "ada ['role', 'admin']"),
            (node(&of_node, "examples/clients/node/login.mjs"), "ada [ 'role', 'admin' ]"),
            (Command::new(of_go.join("login")), "ada [role admin]"),
            (Command::new(&of_rust), "ada [\"role\", \"admin\"]"),
            (java(&of_java, "examples/clients/java/Login.java"), "ada [role, admin]"),
        ];
        for (count, (program, says)) in programs.into_iter().enumerate() {
            assert_eq!(layer.run(program).await, [says], "{}", engine.name);
            // One session more, and the index of the user, whose tag is the same in each language.
            assert_eq!(layer.keys().await.len(), count + 2, "{}", engine.name);
        }
    }
}

/// The names of other stores' keys are their sessions' secrets.
#[tokio::test]
async fn a_session_store_sees_nothing_of_others() {
    for engine in engines() {
        let layer = Layer::start(&engine).await;
        let () = layer.observer.query(cmd("SET").arg("other:session-id").arg("x")).await.unwrap();
        for (question, may) in [
            ("GET web:a", true),
            ("SET web:a x EX 60", true),
            ("HSET web:a field value", true),
            ("PUBLISH web:event x", true),
            ("FCALL redoubt_session_get 1 web:{t}s:a", true),
            ("MULTI", true),
            ("WAIT 1 100", true),
            ("TIME", true),
            ("SELECT 0", true),
            ("GET other:session-id", false),
            ("COPY other:session-id web:a", false),
            ("RENAME web:a other:a", false),
            ("SORT web:a BY other:*", false),
            ("FCALL redoubt_session_get 1 other:{t}s:a", false),
            ("PUBLISH other:event x", false),
            ("SUBSCRIBE __keyevent@0__:expired", false),
            ("PSUBSCRIBE *", false),
            ("SCAN 0 MATCH web:*", false),
            ("RANDOMKEY", false),
            ("KEYS web:*", false),
            ("DBSIZE", false),
            ("PUBSUB CHANNELS", false),
            ("CLIENT TRACKING ON BCAST", false),
            ("CLIENT LIST", false),
            ("CLIENT KILL ID 1", false),
            ("EVAL return 0", false),
            ("SCRIPT FLUSH", false),
            ("FUNCTION LIST", false),
            ("FUNCTION FLUSH", false),
            ("FLUSHDB", false),
            ("FLUSHALL", false),
            ("SWAPDB 0 1", false),
            ("MONITOR", false),
            ("CONFIG GET *", false),
            ("CONFIG SET notify-keyspace-events KEA", false),
            ("ACL WHOAMI", false),
            ("ACL LIST", false),
            ("DEBUG SLEEP 0", false),
            ("SHUTDOWN", false),
            ("REPLICAOF NO ONE", false),
        ] {
            let mut dry_run = cmd("ACL");
            dry_run.arg("DRYRUN").arg(STORE_USER);
            question.split(' ').for_each(|word| {
                dry_run.arg(word);
            });
            let answer: String = layer.observer.query(&dry_run).await.unwrap();
            assert_eq!(answer == "OK", may, "{}: {question}: {answer}", engine.name);
        }
    }
}

/// Each program calls four times with a limit of three: three are allowed, and the headers say when to come back.
#[tokio::test]
async fn the_examples_limit_a_subject_with_the_binding() {
    let (of_node, of_python, of_go) = (installed("node").await, installed("python").await, installed("go").await);
    let of_rust = built_example("limit", "examples/clients/rust/limit.rs").await;
    let draft = LimitPolicyDraft {
        policy: "shop/api".to_owned(),
        generation: 1,
        prefix: PREFIX.to_owned(),
        mode: LimitMode::Enforce,
        count_denied: false,
        shards: 1,
        limits: vec![Limit {
            name: "minute".to_owned(),
            algorithm: Algorithm::FixedWindowFromFirstHit,
            quota: 3,
            window_milliseconds: 60_000,
            mode: LimitMode::Enforce,
        }],
    };
    let policy = LimitPolicy::parse(draft).unwrap();
    for engine in engines() {
        let layer = Layer::start_for(&engine, UseKind::RateLimitPolicy).await;
        let operator = connect(&layer.primary, users::OPERATOR).await;
        load(&operator, &limit_library(std::slice::from_ref(&policy))).await.unwrap();
        let says = r#""minute";r=2;t=60 60"#;
        for (mut program, allowed) in [
            (python(&of_python, "examples/clients/python/limit.py"), "[True, True, True, False]"),
            (node(&of_node, "examples/clients/node/limit.mjs"), "true,true,true,false"),
            (Command::new(of_go.join("limit")), "[true true true false]"),
            (Command::new(&of_rust), "[true, true, true, false]"),
        ] {
            // On a busy machine a call takes longer than the deadline of the example.
            program.env("LIMIT_DEADLINE", "10");
            assert_eq!(layer.run(program).await, [format!("{allowed} {says}")], "{}", engine.name);
        }
    }
}

/// Each program reads with eight threads what is absent, invalidates a tag, lets its source fail, and keeps a copy that a message and
/// a gap remove.
#[tokio::test]
async fn the_examples_read_through_a_cache_with_the_binding() {
    let (of_node, of_python, of_go) = (installed("node").await, installed("python").await, installed("go").await);
    let of_rust = built_example("cache", "examples/clients/rust/cache.rs").await;
    let policy = CachePolicy { stale_ms: HOUR, lease_ms: 5_000, ..policy("web") };
    for engine in engines() {
        let layer = Layer::start_for(&engine, UseKind::RateLimitPolicy).await;
        let mut rights = cmd("ACL");
        rights.arg("SETUSER").arg(STORE_USER).arg("+fcall").arg("+fcall_ro").arg(format!("&{CHANNEL}"));
        layer.observer.query::<()>(&rights).await.unwrap();
        let operator = connect(&layer.primary, users::OPERATOR).await;
        load(&operator, &cache_library(std::slice::from_ref(&policy))).await.unwrap();
        for program in [
            python(&of_python, "examples/clients/python/cache.py"),
            node(&of_node, "examples/clients/node/cache.mjs"),
            Command::new(of_go.join("cache")),
            Command::new(&of_rust),
        ] {
            let says = ["one computed", "value 2", "stale value 2 value 2", "down", "told", "noticed"];
            assert_eq!(layer.run(program).await, says, "{}", engine.name);
        }
        let keys = layer.keys().await;
        assert!(keys.iter().all(|key| key.starts_with(PREFIX)), "{keys:?}");
    }
}
