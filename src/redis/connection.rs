//! One connection to one server, bounded in time, without retries: its holder decides when to open another.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ::redis::aio::{MultiplexedConnection, PubSub};
use ::redis::io::tcp::socket2::{SockRef, TcpKeepalive};
use ::redis::{AsyncConnectionConfig, Cmd, FromRedisValue, Pipeline, RedisConnectionInfo, RedisError, Value};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::error::{Cause, Class, Error, Result};
use super::reply_size::BoundedStream;

/// Time to make a connection, log in included. Within a cluster it takes a millisecond; a silent node costs this much.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Time for one answer, unless the caller sets another.
pub(crate) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);
/// A connection on which nothing arrives for this long is probed once a second, and given up after three silent seconds:
/// else a subscription to a node that lost its power would listen without end.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(2);

/// A password. Its `Debug` form hides it, and it has no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes a password: no `Debug` output shows it from then on.
    pub fn new(password: impl Into<String>) -> Self {
        Self(password.into())
    }

    /// The password itself, for the one line that sends or writes it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("***")
    }
}

/// Where a server is, and who we are to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// IP address or host name.
    pub address: String,
    /// TCP port.
    pub port: u16,
    /// ACL user.
    pub username: String,
    /// Password of the ACL user.
    pub password: Secret,
    /// What to log in with where the server refuses that one.
    pub other_password: Option<Secret>,
}

impl Endpoint {
    /// `host:port`, an IPv6 address in brackets.
    pub(crate) fn name(&self) -> String {
        if self.address.contains(':') {
            format!("[{}]:{}", self.address, self.port)
        } else {
            format!("{}:{}", self.address, self.port)
        }
    }

    fn login(&self, password: &Secret) -> RedisConnectionInfo {
        RedisConnectionInfo::default()
            .set_username(&self.username)
            .set_password(password.reveal())
            // The handshake's CLIENT SETINFO would be one more command that every user must be allowed.
            .set_skip_set_lib_name()
    }

    /// Not by the client library's own way: on that a reply has no bound.
    async fn connect(&self) -> io::Result<BoundedStream<TcpStream>> {
        let stream = TcpStream::connect((self.address.as_str(), self.port)).await?;
        // Our commands are small and their answers are waited for: nothing is gained by gathering them.
        stream.set_nodelay(true)?;
        let keepalive =
            TcpKeepalive::new().with_time(KEEPALIVE_AFTER).with_interval(Duration::from_secs(1)).with_retries(3);
        SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
        Ok(BoundedStream::new(stream))
    }
}

/// A connection. Clones share it; requests are pipelined.
#[derive(Clone)]
pub struct Connection {
    inner: MultiplexedConnection,
    /// What reads and writes. It ends with the last clone, also where an answer is still to come.
    driver: Arc<JoinSet<()>>,
    /// Its other end goes with the connection.
    ended: watch::Receiver<()>,
    name: String,
    took_other_password: bool,
}

impl fmt::Debug for Connection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Connection({})", self.name)
    }
}

impl Connection {
    /// Connects and logs in within the default time limits. Errors: [`Error`], with the address.
    pub async fn open(endpoint: &Endpoint) -> Result<Self> {
        Self::open_with(endpoint, CONNECT_TIMEOUT, RESPONSE_TIMEOUT).await
    }

    /// Connects and logs in, with own bounds.
    pub async fn open_with(endpoint: &Endpoint, connect: Duration, response: Duration) -> Result<Self> {
        let opened = Self::log_in(endpoint, &endpoint.password, connect, response).await;
        let is_refused = opened.as_ref().is_err_and(|error| error.class() == Class::Denied);
        match &endpoint.other_password {
            Some(other) if is_refused => {
                let opened = Self::log_in(endpoint, other, connect, response).await?;
                Ok(Self { took_other_password: true, ..opened })
            }
            Some(_) | None => opened,
        }
    }

    async fn log_in(endpoint: &Endpoint, password: &Secret, connect: Duration, response: Duration) -> Result<Self> {
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(response));
        let login = endpoint.login(password);
        let is_full = OnceLock::new();
        let connecting = async {
            let stream = endpoint.connect().await?;
            is_full.get_or_init(|| stream.is_full());
            MultiplexedConnection::new_with_config(&login, stream, config).await
        };
        let (inner, driving) =
            in_time(connect, connecting).await.map_err(|source| not_connected(endpoint, is_full.get(), source))?;
        let mut driver = JoinSet::new();
        let (open, ended) = watch::channel(());
        driver.spawn(async move {
            let _open = open;
            driving.await;
        });
        Ok(Self { inner, driver: Arc::new(driver), ended, name: endpoint.name(), took_other_password: false })
    }

    /// Sends one command and reads its reply. Errors: refusal, time limit, a reply of another form.
    pub async fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T> {
        let mut connection = self.inner.clone();
        command.query_async(&mut connection).await.map_err(|error| self.failed(command, error))
    }

    /// Sends one command whose answer is text. What is no UTF-8 in it becomes `U+FFFD`: clients choose words that servers repeat, such as
    /// those of errors in `INFO`.
    pub(crate) async fn text(&self, command: &Cmd) -> Result<String> {
        let bytes: Vec<u8> = self.query(command).await?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Sends several commands in one write, not as a transaction, and answers each one's reply or error. The outer error is
    /// the connection's.
    pub async fn query_all(&self, commands: &[Cmd]) -> Result<Vec<Result<Value>>> {
        let Some(first) = commands.first() else { return Ok(Vec::new()) };
        let mut pipeline = Pipeline::with_capacity(commands.len());
        for command in commands {
            pipeline.add_command(command.clone());
        }
        let mut connection = self.inner.clone();
        let replies: Vec<Result<Value, RedisError>> = pipeline
            .ignore_errors()
            .query_async(&mut connection)
            .await
            .map_err(|error: RedisError| self.failed(first, error))?;
        Ok(commands
            .iter()
            .zip(replies)
            .map(|(command, reply)| reply.map_err(|error| self.failed(command, error)))
            .collect())
    }

    /// Sends a command whose success is that the server closes the connection (`SHUTDOWN`).
    pub(super) async fn query_until_closed(&self, command: &Cmd, wait: Duration) -> Result<()> {
        let mut connection = self.inner.clone();
        connection.set_response_timeout(wait);
        match command.query_async::<Value>(&mut connection).await {
            Err(error) if error.is_timeout() || !error.is_connection_dropped() => Err(self.failed(command, error)),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// The same connection with another bound for each answer (`WAIT`, `FUNCTION LOAD` of a large library).
    #[must_use]
    pub fn with_response_timeout(&self, response: Duration) -> Self {
        let mut inner = self.inner.clone();
        inner.set_response_timeout(response);
        let (driver, ended, name) = (Arc::clone(&self.driver), self.ended.clone(), self.name.clone());
        Self { inner, driver, ended, name, took_other_password: self.took_other_password }
    }

    fn failed(&self, command: &Cmd, error: impl Into<Cause>) -> Error {
        Error::Command { command: name_of(command), address: self.name.clone(), source: error.into() }
    }

    /// Waits until the server, or the way to it, ends the connection.
    pub(crate) async fn wait_until_ended(&self) {
        // No value is ever sent.
        while self.ended.clone().changed().await.is_ok() {}
    }

    /// Whether the server refused the endpoint's password and took the other one.
    pub(crate) const fn took_other_password(&self) -> bool {
        self.took_other_password
    }

    /// `host:port` of the server.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The error for an answer that makes no sense.
    pub(super) fn bad_reply(&self, command: &str, problem: impl Into<String>) -> Error {
        Error::Reply { command: command.to_owned(), address: self.name.clone(), problem: problem.into() }
    }
}

/// A connection that listens to `channel`. It ends when the server is gone ([`KEEPALIVE_AFTER`]).
pub async fn open_subscriber(endpoint: &Endpoint, channel: &str) -> Result<PubSub> {
    let subscribed = subscribe(endpoint, &endpoint.password, channel).await;
    let is_refused = subscribed.as_ref().is_err_and(|error| error.class() == Class::Denied);
    match &endpoint.other_password {
        Some(other) if is_refused => subscribe(endpoint, other, channel).await,
        Some(_) | None => subscribed,
    }
}

async fn subscribe(endpoint: &Endpoint, password: &Secret, channel: &str) -> Result<PubSub> {
    let is_full = OnceLock::new();
    let subscribing = async {
        let stream = endpoint.connect().await?;
        is_full.get_or_init(|| stream.is_full());
        let mut subscriber = PubSub::new(&endpoint.login(password), stream).await?;
        subscriber.subscribe(channel).await?;
        Ok(subscriber)
    };
    in_time(CONNECT_TIMEOUT, subscribing).await.map_err(|source| not_connected(endpoint, is_full.get(), source))
}

/// Why there is no connection. A server without one left refuses the login in words that the library loses.
fn not_connected(endpoint: &Endpoint, is_full: Option<&Arc<AtomicBool>>, source: RedisError) -> Error {
    let address = endpoint.name();
    if is_full.is_some_and(|is_full| is_full.load(Ordering::Relaxed)) {
        return Error::Full { address };
    }
    Error::Connect { address, source: source.into() }
}

/// A node without power would hold us for minutes.
async fn in_time<T>(limit: Duration, connecting: impl Future<Output = Result<T, RedisError>>) -> Result<T, RedisError> {
    let late = |_| Err(io::Error::new(io::ErrorKind::TimedOut, "no connection in time").into());
    timeout(limit, connecting).await.unwrap_or_else(late)
}

/// The command's first word, or its first two where the first is a family (`CONFIG SET`). Never a further argument.
fn name_of(command: &Cmd) -> String {
    const FAMILIES: [&str; 8] = ["CONFIG", "CLIENT", "ACL", "SENTINEL", "FUNCTION", "CLUSTER", "SCRIPT", "MODULE"];
    let words: Vec<String> = command
        .args_iter()
        .filter_map(|argument| match argument {
            ::redis::Arg::Simple(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            _ => None,
        })
        .take(2)
        .collect();
    match words.as_slice() {
        [first, second] if FAMILIES.contains(&first.as_str()) => format!("{first} {second}"),
        [first, ..] => first.clone(),
        [] => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[test]
    fn errors_and_debug_output_never_hold_an_argument() {
        let mut command = ::redis::cmd("ACL");
        command.arg("SETUSER").arg("web").arg(">secret");
        assert_eq!(name_of(&command), "ACL SETUSER");
        assert_eq!(name_of(::redis::cmd("AUTH").arg("user").arg("secret")), "AUTH");
        assert_eq!(format!("{:?}", Secret::new("secret")), "***");
    }

    fn endpoint(port: u16) -> Endpoint {
        let password = Secret::new("hunter2");
        Endpoint { address: "127.0.0.1".to_owned(), port, username: "agent".to_owned(), password, other_password: None }
    }

    #[tokio::test]
    async fn a_closed_port_is_unreachable_and_its_error_holds_no_secret() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let error = Connection::open(&endpoint(port)).await.unwrap_err();
        assert_eq!(error.class(), super::super::Class::Unreachable);
        assert!(!format!("{error:?} {error}").contains("hunter2"));
        assert!(open_subscriber(&endpoint(port), "events").await.is_err());
    }

    /// It says so before any login, so its words are no answer to one.
    #[tokio::test]
    async fn a_server_without_a_connection_left_is_full_and_refuses_no_password() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                stream.write_all(b"-ERR max number of clients reached\r\n").await.unwrap();
            }
        });
        let error = Connection::open(&endpoint(port)).await.unwrap_err();
        assert_eq!(error.class(), Class::Full, "{error}");
        assert_eq!(open_subscriber(&endpoint(port), "events").await.map(|_| ()).unwrap_err().class(), Class::Full);
    }

    #[tokio::test]
    async fn a_silent_server_is_given_up_within_the_limit() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let silent = endpoint(listener.local_addr().unwrap().port());
        let limit = Duration::from_millis(50);
        let error = Connection::open_with(&silent, limit, limit).await.unwrap_err();
        assert_eq!(error.class(), super::super::Class::Unreachable);
        assert_eq!(
            open_subscriber(&silent, "events").await.map(|_| ()).unwrap_err().class(),
            super::super::Class::Unreachable
        );
    }
}
