//! A layer as an application of another language sees it: processes with the users of a layer and of one use, its binding as files,
//! and the programs that run with it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use redis::cmd;
use redoubt::model::UseKind;
use redoubt::model::function_library::Functions;
use redoubt::redis::rights::Grant;
use redoubt::redis::users::{self, PasswordDigests, acl_file, data_users, sentinel_users};
use redoubt::redis::{Connection, Endpoint, Error};
use sha2::{Digest as _, Sha256};
use tokio::process::Command;

use super::engine_process::{Engine, PORT, Process, signal};
use super::eventually;

const MASTER: &str = "web-1234";
/// The user of the use.
pub const STORE_USER: &str = "shop-web";
/// Prefix of the use, where a test names no other.
pub const PREFIX: &str = "web:";
/// Channel of a cache.
pub const CHANNEL: &str = "cache:invalidate:web:";
/// Reads what the servers counted, and may do everything; no user of Redoubt may.
pub const OBSERVER: &str = "observer";
const SOON: Duration = Duration::from_secs(30);
/// A JVM on a busy machine of two cores, with room.
const PROGRAM_ENDS: Duration = Duration::from_mins(2);

fn password(user: &str) -> String {
    format!("password-of-{user}")
}

fn digest(user: &str) -> String {
    hex::encode(Sha256::digest(password(user)))
}

fn digests() -> PasswordDigests {
    PasswordDigests {
        operator: digest(users::OPERATOR),
        agent: digest(users::AGENT),
        replication: digest(users::REPLICATION),
        sentinel: digest(users::SENTINEL),
        application: None,
        administrator: None,
    }
}

/// A primary, its replica and a Sentinel, with the users of a layer and of one use.
pub struct BoundLayer {
    /// The primary.
    pub primary: Process,
    /// Connection of a user who may do everything.
    pub observer: Connection,
    /// Its replica.
    pub replica: Process,
    sentinel: Process,
    bindings: PathBuf,
    prefix: String,
}

impl BoundLayer {
    /// Starts it for a session store.
    pub async fn start(engine: &Engine) -> Self {
        Self::start_for(engine, UseKind::SessionStore, PREFIX, false).await
    }

    /// Starts it for a use of this kind and prefix, with scripts of its own or without.
    pub async fn start_for(engine: &Engine, kind: UseKind, prefix: &str, scripts: bool) -> Self {
        let mut users = data_users(&digests());
        let channel = (kind == UseKind::CacheNamespace).then_some(CHANNEL);
        let nothing = Functions::new();
        let grant = Grant { scripts, channel, ..Grant::plain(kind, prefix, &nothing) };
        users.insert(STORE_USER.to_owned(), users::use_on_data(grant, &digest(STORE_USER)));
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
        let prefix = prefix.to_owned();
        let layer = Self { primary, observer, replica, sentinel, bindings, prefix };
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
            ("prefix", &self.prefix),
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

    /// Gives a program the bindings.
    pub fn give_bindings(&self, command: &mut Command) {
        command.env("SERVICE_BINDING_ROOT", &self.bindings).kill_on_drop(true);
    }

    /// Runs a program with the bindings and answers its lines.
    pub async fn run(&self, mut command: Command) -> Vec<String> {
        self.give_bindings(&mut command);
        let ended = tokio::time::timeout(PROGRAM_ENDS, command.output()).await;
        let output = ended.unwrap_or_else(|_| panic!("does not end: {command:?}")).unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{command:?}\n{out}{err}");
        out.lines().map(str::to_owned).collect()
    }

    /// Address of its Sentinel.
    pub fn sentinel_address(&self) -> &str {
        &self.sentinel.address
    }

    /// Lets primary and Sentinel do something for a moment now and then, with this pause between, until the answer is dropped.
    pub fn crawl(&self, pause: Duration) -> Crawl<'_> {
        let (stop, stopped) = mpsc::channel::<()>();
        self.freeze(true);
        let pids = [&self.primary, &self.sentinel].map(Process::pid);
        let thread = std::thread::spawn(move || {
            while stopped.recv_timeout(pause) == Err(mpsc::RecvTimeoutError::Timeout) {
                for pid in pids {
                    signal(pid, "CONT");
                }
                for pid in pids {
                    signal(pid, "STOP");
                }
            }
        });
        Crawl { layer: self, stop: Some(stop), thread: Some(thread) }
    }

    /// Stops primary and Sentinel in their tracks, or lets them go on.
    pub fn freeze(&self, frozen: bool) {
        for process in [&self.primary, &self.sentinel] {
            signal(process.pid(), if frozen { "STOP" } else { "CONT" });
        }
    }

    /// The folder of one of its bindings: `direct`, `web` or `limits`.
    pub fn binding(&self, name: &str) -> PathBuf {
        self.bindings.join(name)
    }

    /// Names of all keys.
    pub async fn keys(&self) -> Vec<String> {
        self.observer.query(cmd("KEYS").arg("*")).await.unwrap()
    }

    /// Runs a library's program directly and through Sentinel: it holds these claims, and leaves no key outside of the prefix.
    pub async fn claims(&self, engine: &Engine, program: impl Fn() -> Command, claims: &[&str]) {
        for binding in ["direct", "web"] {
            let mut command = program();
            command.arg(binding);
            assert_eq!(self.run(command).await, claims, "{} {binding}", engine.name);
        }
        let keys = self.keys().await;
        assert!(keys.iter().all(|key| key.starts_with(&self.prefix)), "{keys:?}");
    }
}

/// While it lives, each answer of a layer takes long.
pub struct Crawl<'a> {
    layer: &'a BoundLayer,
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Crawl<'_> {
    fn drop(&mut self) {
        drop(self.stop.take());
        let _ = self.thread.take().map(JoinHandle::join);
        self.layer.freeze(false);
    }
}

/// A connection to a process of the layer.
pub async fn connect(process: &Process, user: &str) -> Connection {
    Connection::open(&endpoint(process, user)).await.unwrap()
}

/// Where a user of the layer logs in on a server of it.
pub fn endpoint(process: &Process, user: &str) -> Endpoint {
    process.endpoint(user, &password(user))
}

/// Where what a language's programs need is; fetched if it is not there.
pub async fn installed(language: &str) -> PathBuf {
    let output = Command::new("tests/clients/install").arg(language).stderr(Stdio::inherit()).output().await.unwrap();
    assert!(output.status.success(), "tests/clients/install failed");
    let text = String::from_utf8(output.stdout).unwrap();
    let folder = text.lines().find_map(|line| line.strip_prefix(&format!("{language}=")));
    folder.unwrap_or_else(|| panic!("no folder for {language}: {text}")).into()
}

/// The program of an example of this package. Built only if its source is newer: cargo would wait for whoever else builds.
pub async fn built_example(name: &str, source: &str) -> PathBuf {
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
pub fn node(folder: &Path, source: &str) -> Command {
    let mut command = Command::new("node");
    command.args(["--input-type=module", "-"]).current_dir(folder).stdin(fs::File::open(source).unwrap());
    command
}

/// A program with the packages of the folder.
pub fn python(folder: &Path, source: &str) -> Command {
    let mut command = Command::new(folder.join("venv/bin/python"));
    command.arg(source).env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

/// A program with the packages of the distribution.
pub fn ruby(source: &str) -> Command {
    let mut command = Command::new("ruby");
    command.arg(source);
    command
}

/// Short-lived: what it saves by not optimizing is more than what it loses.
pub fn java(folder: &Path, source: &str) -> Command {
    let mut command = Command::new("java");
    command.args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp"]);
    command.arg(format!("{}/lib/*", folder.display())).arg(source);
    command
}
