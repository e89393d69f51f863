//! Room for the layer's own connections on a server whose clients take all.
//!
//! A server has [`OWN_CONNECTIONS`] more connections than applications may have, and does not keep them apart: a pool that is too large
//! takes them all. What is open goes on, but nothing of ours can log in to a server after a restart or a failover: no agent, replica or
//! Sentinel. So where little is left, the agent ends what is above the number of applications: connections without a login first, then
//! the newest. While clients come back at once, it looks again and again, and in each gap some of ours get in, which are not ended.

use std::time::Duration;

use tokio::time::Instant;

use super::state::State;
use crate::model::memory::OWN_CONNECTIONS;
use crate::redis::info::Info;
use crate::redis::server::{self, ClientLine};
use crate::redis::{Connection, users};

/// With fewer connections left, room is made.
const LEAST_LEFT: u64 = 16;
/// Of more connections the list would be too large to be read: each is a line of some 350 bytes.
const MOST_LISTED: u64 = 40_000;
/// How long it is looked at more often after room was made.
const SHORT_FOR: Duration = Duration::from_secs(1);

/// What is followed of it.
#[derive(Debug, Default)]
pub(super) struct OwnRoom {
    made: Option<Instant>,
}

impl OwnRoom {
    /// Whether clients may have taken the room again that was made a moment ago.
    pub(super) fn is_short(&self) -> bool {
        self.made.is_some_and(|at| at.elapsed() < SHORT_FOR)
    }

    /// Looks at a data node that answers.
    pub(super) async fn keep(&mut self, state: &State, connection: &Connection, info: &Info) {
        let Some(most) = most_of_others(info) else { return };
        let ended = async {
            let ids = surplus(server::all_clients(connection).await?, most);
            server::cut_ids(connection, &ids).await.map(|()| ids.len())
        };
        match ended.await {
            Ok(0) => {}
            Ok(count) => {
                if !self.is_short() {
                    tracing::warn!(
                        connections = count,
                        most,
                        "clients take the connections that Redoubt needs: those above the number of applications are ended"
                    );
                }
                self.made = Some(Instant::now());
                state.notice(format!(
                    "connections of applications above {most} were ended: they took those that Redoubt needs itself"
                ));
            }
            Err(error) => tracing::warn!(%error, "clients may have taken the connections that Redoubt needs"),
        }
    }
}

/// How many connections of others may stay on a server that has hardly one left. `None`: enough are left, or there are too many to list.
fn most_of_others(info: &Info) -> Option<u64> {
    let number = |name| info.number(name).unwrap_or_default();
    let (most, own) = (number("maxclients"), u64::from(OWN_CONNECTIONS));
    let open = number("connected_clients").saturating_add(number("connected_slaves"));
    let is_short = open.saturating_add(LEAST_LEFT) > most && most > own && most <= MOST_LISTED;
    is_short.then(|| most - own)
}

/// Which connections are to be ended: all of others above `most`.
fn surplus(mut clients: Vec<ClientLine>, most: u64) -> Vec<u64> {
    clients.retain(|client| users::is_application_user(&client.user) || client.user == users::DEFAULT);
    let count = clients.len().saturating_sub(usize::try_from(most).unwrap_or(usize::MAX));
    clients.sort_by_key(|client| (client.user != users::DEFAULT, std::cmp::Reverse(client.id)));
    clients.iter().take(count).map(|client| client.id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_above_the_number_of_applications_end_without_login_first_and_then_the_newest() {
        let client = |id, user: &str| ClientLine { id, user: user.to_owned(), command: String::new() };
        let clients = || {
            let ours = [client(9, "redoubt-sentinel"), client(1, "redoubt-agent"), client(8, "(superuser)")];
            let others = [client(2, "app"), client(3, "default"), client(4, "ss.shop.web"), client(5, "app")];
            ours.into_iter().chain(others).collect::<Vec<_>>()
        };
        assert_eq!(surplus(clients(), 4), [0_u64; 0]);
        assert_eq!(surplus(clients(), 3), [3]);
        assert_eq!(surplus(clients(), 1), [3, 5, 4]);
    }

    #[test]
    fn room_is_made_where_few_connections_are_left() {
        let of = |clients: u32, replicas: u32, most: u32| {
            let text = format!("connected_clients:{clients}\nconnected_slaves:{replicas}\nmaxclients:{most}\n");
            most_of_others(&Info::parse(&text))
        };
        assert_eq!([of(146, 2, 164), of(147, 2, 164), of(64, 0, 64)], [None, Some(100), None]);
        assert_eq!(of(199_990, 2, 200_000), None, "too many to list");
    }
}
