//! A Sentinel-aware client of a use, made of nothing but the folder in which its binding is mounted.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ::redis::{Cmd, FromRedisValue, cmd};
use futures::future::join_all;
use sha2::{Digest as _, Sha256};

use crate::redis::{Connection, Endpoint, Error as RedisError, Secret};

/// Timeout of a lookup and of a connection: a node that is gone should cost little.
const CONNECT: Duration = Duration::from_millis(500);
/// Timeout of an answer: longer than the pause of a planned move.
const ANSWER: Duration = Duration::from_secs(3);
/// Time until a primary is found; the deletion of all pods is among what it has to cover.
const FOUND_WITHIN: Duration = Duration::from_mins(2);
/// Between two questions to Sentinels that do not know of a primary.
const RETRY_AFTER: Duration = Duration::from_millis(20);

/// Why a step could not be carried out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A field of the binding is missing.
    #[error("cannot read the binding's field {}", path.display())]
    Field {
        /// The field's file.
        path: PathBuf,
        source: std::io::Error,
    },
    /// A field of the binding makes no sense.
    #[error("the binding's field {0} is not what a binding says")]
    Form(&'static str),
    /// No Sentinel leads to a primary.
    #[error("no Sentinel of the binding leads to a primary within {FOUND_WITHIN:?}")]
    NoPrimary,
    #[error("cannot use the store as an application")]
    Command(#[from] RedisError),
    /// A program that this one was to hear of is gone.
    #[error("cannot read standard input")]
    Input(#[from] std::io::Error),
}

/// What the binding says.
#[derive(Debug)]
pub(super) struct Store {
    sentinels: Vec<Endpoint>,
    master_name: String,
    username: String,
    password: Secret,
    prefix: String,
    /// Replicas that should confirm a revocation: 0 where the binding, as that of a rate limit policy, does not say.
    pub wait_replicas: u32,
}

impl Store {
    /// Reads a mounted binding.
    pub(super) fn bound(folder: &Path) -> Result<Self, Error> {
        let field = |name: &str| {
            let path = folder.join(name);
            std::fs::read_to_string(&path).map_err(|source| Error::Field { path, source })
        };
        let (username, password) = (field("sentinel-username")?, Secret::new(field("sentinel-password")?));
        let mut sentinels = Vec::new();
        for seed in field("sentinels")?.split(',') {
            let (address, port) = seed.rsplit_once(':').ok_or(Error::Form("sentinels"))?;
            sentinels.push(Endpoint {
                address: address.to_owned(),
                port: port.parse().map_err(|_| Error::Form("sentinels"))?,
                username: username.clone(),
                password: password.clone(),
                other_password: None,
            });
        }
        let wait_replicas = match field("wait-replicas") {
            Ok(text) => text.parse().map_err(|_| Error::Form("wait-replicas"))?,
            Err(Error::Field { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
        Ok(Self {
            sentinels,
            master_name: field("master-name")?,
            username: field("username")?,
            password: Secret::new(field("password")?),
            prefix: field("prefix")?,
            wait_replicas,
        })
    }

    /// The key of a session: all sessions of a user are in one slot.
    pub(super) fn session(&self, user: &str, id: &str) -> String {
        format!("{}{{{}}}s:{id}", self.prefix, tag(user))
    }

    /// The key of a subject of limits.
    pub(super) fn subject(&self, subject: &str) -> String {
        format!("{}{{{subject}}}", self.prefix)
    }

    /// The key of an entry of a cache: all of them are in one slot.
    pub(super) fn entry(&self, name: &str) -> String {
        format!("{}{{0}}{name}", self.prefix)
    }

    /// The key of the index of a user's sessions.
    pub(super) fn index(&self, user: &str) -> String {
        format!("{}{{{}}}u:{user}", self.prefix, tag(user))
    }

    /// A connection to the primary that the Sentinels name, as soon as there is one.
    pub(super) async fn connect(&self) -> Result<Connection, Error> {
        let began = Instant::now();
        loop {
            for endpoint in self.named().await {
                let Ok(connection) = Connection::open_with(&endpoint, CONNECT, ANSWER).await else { continue };
                // A Sentinel may be late: what counts is the server's own word (Redis documentation, "Guidelines for Redis
                // clients with support for Redis Sentinel").
                let role: Result<Vec<::redis::Value>, RedisError> = connection.query(&cmd("ROLE")).await;
                let role = role.ok().and_then(|role| String::from_redis_value(role.into_iter().next()?).ok());
                if role.as_deref() == Some("master") {
                    return Ok(connection);
                }
            }
            if began.elapsed() > FOUND_WITHIN {
                return Err(Error::NoPrimary);
            }
            tokio::time::sleep(RETRY_AFTER).await;
        }
    }

    /// The addresses that the Sentinels name, each once.
    async fn named(&self) -> Vec<Endpoint> {
        let ask = async |sentinel: &Endpoint| -> Option<(String, u16)> {
            let connection = Connection::open_with(sentinel, CONNECT, CONNECT).await.ok()?;
            let mut question = cmd("SENTINEL");
            question.arg("GET-MASTER-ADDR-BY-NAME").arg(&self.master_name);
            connection.query(&question).await.ok()?
        };
        let mut found: Vec<(String, u16)> =
            join_all(self.sentinels.iter().map(ask)).await.into_iter().flatten().collect();
        found.sort();
        found.dedup();
        let endpoint = |(address, port)| Endpoint {
            address,
            port,
            username: self.username.clone(),
            password: self.password.clone(),
            other_password: None,
        };
        found.into_iter().map(endpoint).collect()
    }
}

/// What stands for a user in the keys of the user's sessions.
fn tag(user: &str) -> String {
    hex::encode(&Sha256::digest(user)[..4])
}

pub(super) fn call(function: &str, key: &str, arguments: &[&str]) -> Cmd {
    let mut call = cmd("FCALL");
    call.arg(function).arg(1).arg(key).arg(arguments);
    call
}
