//! Single engine processes on loopback addresses of their own, without agents.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use redoubt::redis::{Connection, Endpoint, Secret, server};

use super::eventually;

/// Port of every process here: the addresses differ.
pub const PORT: u16 = 6379;

static NEXT: AtomicU8 = AtomicU8::new(1);

/// An engine to test against.
#[derive(Clone, Debug)]
pub struct Engine {
    /// `redis-7.0`, for messages.
    pub name: String,
    /// Its server program.
    pub program: PathBuf,
    /// What its environment has beside ours.
    pub environment: BTreeMap<String, String>,
}

impl Engine {
    /// An engine of this name and program.
    pub fn new(name: &str, program: &str) -> Self {
        Self { name: name.to_owned(), program: program.into(), environment: BTreeMap::new() }
    }
}

/// The engines named in `REDOUBT_TEST_ENGINES` (`name=path:name=path`), else `redis-server` of the search path.
pub fn engines() -> Vec<Engine> {
    let named = std::env::var("REDOUBT_TEST_ENGINES").unwrap_or_default();
    let engines: Vec<Engine> = named
        .split(':')
        .filter_map(|entry| entry.split_once('='))
        .map(|(name, path)| Engine::new(name, path))
        .collect();
    if engines.is_empty() { vec![Engine::new("default", "redis-server")] } else { engines }
}

/// A running server or Sentinel. It ends when dropped.
pub struct Process {
    /// Its address.
    pub address: String,
    /// Its folder.
    pub folder: PathBuf,
    engine: Engine,
    is_sentinel: bool,
    child: Option<Child>,
}

impl Process {
    /// Starts a data node with these lines in its configuration.
    pub async fn server(engine: &Engine, lines: &[&str]) -> Self {
        Self::start(engine, false, |_| lines.iter().map(|line| (*line).to_owned()).collect()).await
    }

    /// Starts a process whose configuration may name its address.
    pub async fn start(engine: &Engine, is_sentinel: bool, lines: impl FnOnce(&str) -> Vec<String>) -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let address = format!("127.1.{}.{number}", std::process::id() % 250);
        let folder = std::env::temp_dir().join(format!("redoubt-engine-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let mut text = format!("port {PORT}\nbind {address}\nprotected-mode no\ndir {}\n", folder.display());
        if !is_sentinel {
            text.push_str("save \"\"\nrepl-diskless-sync-delay 0\nreplica-announce-ip ");
            text.push_str(&address);
            text.push('\n');
        }
        for line in lines(&address) {
            text.push_str(&line);
            text.push('\n');
        }
        fs::write(folder.join("engine.conf"), text).unwrap();
        let mut process = Self { address, folder, engine: engine.clone(), is_sentinel, child: None };
        process.run();
        process.wait_until_it_answers().await;
        process
    }

    /// Starts the program in its folder (again).
    pub fn run(&mut self) {
        let log = fs::File::options().create(true).append(true).open(self.folder.join("log")).unwrap();
        let mut command = Command::new(&self.engine.program);
        command.arg(self.folder.join("engine.conf")).envs(&self.engine.environment);
        if self.is_sentinel {
            command.arg("--sentinel");
        }
        self.child = Some(command.stdin(Stdio::null()).stdout(log).spawn().unwrap());
    }

    /// Until somebody listens.
    pub async fn wait_until_it_answers(&self) {
        eventually(
            &format!("an answer of {} ({})", self.address, self.engine.name),
            Duration::from_secs(10),
            async || tokio::net::TcpStream::connect((self.address.as_str(), PORT)).await.is_ok(),
        )
        .await;
    }

    /// Ends it as a crash would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// Waits for the end of a server that was told to stop.
    pub fn wait(&mut self) {
        self.child.take().unwrap().wait().unwrap();
    }

    /// Its endpoint for a user.
    pub fn endpoint(&self, username: &str, password: &str) -> Endpoint {
        let (address, username) = (self.address.clone(), username.to_owned());
        Endpoint { address, port: PORT, username, password: Secret::new(password), other_password: None }
    }

    /// A connection as the default user of a server without users.
    pub async fn connect(&self) -> Connection {
        Connection::open(&self.endpoint("default", "")).await.unwrap()
    }

    /// Makes it a replica of another and waits for the link.
    pub async fn follow(&self, connection: &Connection, primary: &Self) {
        server::replica_of(connection, &primary.address, PORT).await.unwrap();
        eventually("the replica's link", Duration::from_secs(20), async || {
            server::replication(connection).await.is_ok_and(|info| info.primary_link().is_some_and(|link| link.up))
        })
        .await;
    }
}

/// Sends a signal to a process that may have ended by itself.
pub fn signal(pid: u32, name: &str) {
    let _ = Command::new("kill").args(["-s", name, &pid.to_string()]).stderr(Stdio::null()).status();
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}
