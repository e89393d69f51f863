//! Clients that want to write and are connected to a replica: cut, so that they ask again where the primary is.
//!
//! A server that is demoted keeps its connections, and so does one that comes back as a replica while a Service still names it. Their
//! clients get `READONLY` for each write and stay. So all clients are cut when a server ceases to be primary, or turns out to be none;
//! later only those whose last command was refused are, because others read from a replica on purpose.

use std::collections::BTreeSet;

use crate::model::Role;
use crate::redis::info::Info;
use crate::redis::server::{self, ClientLine};
use crate::redis::{Connection, users};

/// Commands that may write and that no category says so of.
const MAY_WRITE: [&str; 4] = ["eval", "evalsha", "fcall", "exec"];

/// What is followed of a server's clients.
#[derive(Debug, Default)]
pub(super) struct Writers {
    /// Whether the server said since its start what it is.
    is_confirmed: bool,
    /// Commands that had failed at the last poll, for whatever reason.
    failed: u64,
    /// Writes that it had refused when one had failed last.
    refused: u64,
    /// The commands that a replica refuses. `None`: not asked yet.
    commands: Option<BTreeSet<String>>,
}

impl Writers {
    /// Looks at a server that answers. `was_primary`: it was at the poll before, or, at the first one, its record said so.
    pub(super) async fn disconnect_writers(&mut self, connection: &Connection, info: &Info, was_primary: bool) {
        let was_confirmed = std::mem::replace(&mut self.is_confirmed, true);
        if info.role() != Some(Role::Replica) {
            return;
        }
        let failed = info.number("total_error_replies").unwrap_or_default();
        let before = (std::mem::replace(&mut self.failed, failed), self.refused);
        let done = if was_primary {
            tracing::warn!(was_confirmed, "this node is a replica now: its clients are cut");
            server::cut_clients(connection).await.map(drop)
        } else if failed != before.0 {
            self.cut_if_refused(connection).await
        } else {
            Ok(())
        };
        if let Err(error) = done {
            // Looked at again as if it had not been.
            (self.failed, self.refused) = before;
            tracing::warn!(%error, "clients that want to write may stay connected to this replica");
        }
    }

    async fn cut_if_refused(&mut self, connection: &Connection) -> crate::redis::Result<()> {
        let refused = server::refused_writes(connection).await?;
        let before = std::mem::replace(&mut self.refused, refused);
        if refused > before { self.cut_refused(connection).await } else { Ok(()) }
    }

    async fn cut_refused(&mut self, connection: &Connection) -> crate::redis::Result<()> {
        let commands = match self.commands.take() {
            Some(commands) => commands,
            None => server::write_commands(connection).await?,
        };
        let clients = server::clients(connection).await?;
        let ids: Vec<u64> =
            clients.iter().filter(|client| wants_to_write(client, &commands)).map(|one| one.id).collect();
        self.commands = Some(commands);
        if !ids.is_empty() {
            tracing::warn!(
                clients = ids.len(),
                "clients that want to write are connected to this replica: they are cut"
            );
            server::cut_ids(connection, &ids).await?;
        }
        Ok(())
    }
}

fn wants_to_write(client: &ClientLine, commands: &BTreeSet<String>) -> bool {
    let is_ours = client.user.starts_with(users::SYSTEM_PREFIX);
    !is_ours && (commands.contains(&client.command) || MAY_WRITE.contains(&client.command.as_str()))
}

/// A mover that was killed leaves the old primary's writers paused. Once it is a replica there is nothing to pause for: its writers are
/// told so instead of being kept waiting.
pub(super) async fn end_pause(connection: &Connection) {
    if let Err(error) = server::unpause(connection).await {
        tracing::warn!(%error, "writers of the old primary may stay paused for a while");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_and_the_layers_own_users_are_left_alone() {
        let commands = BTreeSet::from(["set".to_owned()]);
        let wants = |user: &str, command: &str| {
            let client = ClientLine { id: 1, user: user.to_owned(), command: command.to_owned() };
            wants_to_write(&client, &commands)
        };
        assert!(wants("app", "set") && wants("ss.shop.web", "fcall"));
        assert!(!wants("app", "get") && !wants("redoubt-operator", "set") && !wants("app", "NULL"));
    }
}
