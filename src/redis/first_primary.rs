//! Waits until one of several servers says that it is primary.

use std::time::Duration;

use tokio::time::sleep;

use super::connection::{Connection, Endpoint};
use super::error::Result;
use super::server::{self, RoleReply};

/// Between two looks at the servers.
const POLL_EVERY: Duration = Duration::from_millis(5);

/// The index of the first server that says that it is primary. Each comes with a connection that is open already, or `None`. A Sentinel
/// cuts all connections of the replica that it promotes, so a server that does not answer is asked over a new one, which `open` makes.
/// It waits without a limit.
pub(crate) async fn first_primary(
    mut servers: Vec<(Endpoint, Option<Connection>)>,
    open: impl AsyncFn(&Endpoint) -> Result<Connection>,
) -> usize {
    loop {
        for (index, (endpoint, connection)) in servers.iter_mut().enumerate() {
            if connection.is_none() {
                *connection = open(endpoint).await.ok();
            }
            let Some(asked) = connection else { continue };
            match server::role(asked).await {
                Ok(RoleReply::Primary { .. }) => return index,
                Ok(_) => {}
                Err(_) => *connection = None,
            }
        }
        sleep(POLL_EVERY).await;
    }
}
