//! One connection to one server, bounded in time, without retries: whoever holds it decides when to open another.

use std::fmt;
use std::time::Duration;

use ::redis::aio::{MultiplexedConnection, PubSub};
use ::redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, FromRedisValue, IntoConnectionInfo,
    RedisConnectionInfo, RedisError,
};

use super::error::{Error, Result};

/// Time to make a connection, log in included. Within a cluster it takes a millisecond; a silent node costs this much.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Time for one answer, unless the caller sets another.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);

/// A password. Its `Debug` form hides it, and it has no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a password.
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
    /// Port.
    pub port: u16,
    /// ACL user.
    pub username: String,
    /// Its password.
    pub password: Secret,
}

impl Endpoint {
    /// `host:port`.
    pub fn name(&self) -> String {
        format!("{}:{}", self.address, self.port)
    }

    fn client(&self) -> Result<Client, RedisError> {
        let login = RedisConnectionInfo::default()
            .set_username(&self.username)
            .set_password(self.password.reveal())
            // The handshake's CLIENT SETINFO would be one more command that every user must be allowed.
            .set_skip_set_lib_name();
        let info: ConnectionInfo = ConnectionAddr::Tcp(self.address.clone(), self.port).into_connection_info()?;
        Client::open(info.set_redis_settings(login))
    }
}

/// A connection. Clones share it; requests are pipelined.
#[derive(Clone)]
pub struct Connection {
    inner: MultiplexedConnection,
    name: String,
}

impl Connection {
    /// Connects and logs in.
    pub async fn open(endpoint: &Endpoint) -> Result<Self> {
        Self::open_with(endpoint, CONNECT_TIMEOUT, RESPONSE_TIMEOUT).await
    }

    /// Connects and logs in, with own bounds.
    pub async fn open_with(endpoint: &Endpoint, connect: Duration, response: Duration) -> Result<Self> {
        let failed = |source| Error::Connect { address: endpoint.name(), source };
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(connect)).set_response_timeout(Some(response));
        let client = endpoint.client().map_err(failed)?;
        let inner = client.get_multiplexed_async_connection_with_config(&config).await.map_err(failed)?;
        Ok(Self { inner, name: endpoint.name() })
    }

    /// Sends one command.
    pub async fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T> {
        let mut connection = self.inner.clone();
        command.query_async(&mut connection).await.map_err(|source| Error::Command {
            command: name_of(command),
            address: self.name.clone(),
            source,
        })
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

/// A connection for subscriptions.
pub async fn open_subscriber(endpoint: &Endpoint) -> Result<PubSub> {
    let failed = |source| Error::Connect { address: endpoint.name(), source };
    endpoint.client().map_err(failed)?.get_async_pubsub().await.map_err(failed)
}

/// The command's first word, or its first two where the first is a family (`CONFIG SET`). Never a further argument.
fn name_of(command: &Cmd) -> String {
    const FAMILIES: [&str; 6] = ["CONFIG", "CLIENT", "ACL", "SENTINEL", "FUNCTION", "CLUSTER"];
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
    use super::*;

    #[test]
    fn errors_and_debug_output_never_hold_an_argument() {
        let mut command = ::redis::cmd("ACL");
        command.arg("SETUSER").arg("web").arg(">secret");
        assert_eq!(name_of(&command), "ACL SETUSER");
        assert_eq!(name_of(::redis::cmd("AUTH").arg("user").arg("secret")), "AUTH");
        assert_eq!(format!("{:?}", Secret::new("secret")), "***");
    }
}
