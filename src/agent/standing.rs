//! Links to the files of the node's dataset, renewed while it is the same: what they hold outlives a full sync.
//!
//! A server that is told to follow another replaces its data within milliseconds, and nothing asks its agent before. So the agent always
//! has links to the files ([`super::aside`]). After each full sync it asks whether the new history contains what the links hold. Where it
//! does, they are renewed; where that cannot be shown, they become a kept folder.

use std::time::Duration;

use tokio::time::Instant;

use super::config::Environment;
use super::disk::Disk;
use super::state::State;
use super::{ancestry, aside, peers};
use crate::model::lineage::{AsideReason, Lineage};
use crate::model::{Address, Role};
use crate::redis::info::{AppendOnly, Info};

/// Between two looks at the files. A rewrite of the append-only file is followed this much later.
const RENEW_EVERY: Duration = Duration::from_secs(1);
/// How long the new primary's agent is asked what its history contains. Then the data is kept: nothing showed that it need not be.
const ASK_FOR: Duration = Duration::from_secs(10);
/// How long a node must be in sync, and a kept folder's data known to be in its primary's history, before the folder is removed.
const PROVEN_AFTER: Duration = Duration::from_mins(10);

/// What is followed of the links.
#[derive(Debug, Default)]
pub struct Standing {
    /// The record of the data that they hold. `None`: there are none.
    of: Option<Lineage>,
    /// Whether that data was written by this very engine as primary.
    as_primary: bool,
    renewed: Option<Instant>,
    /// Since when another history replaced that data, and nothing is decided yet.
    replaced: Option<Instant>,
    in_sync: Option<Instant>,
    proven: Option<Instant>,
    disk: Disk,
}

impl Standing {
    /// Before the engine starts: links of an earlier life whose data was replaced meanwhile stay as they are.
    pub fn open(environment: &Environment, own: Option<&Lineage>) -> Self {
        let earlier = aside::standing_record(environment);
        let is_other = |earlier: &&Lineage| own.is_some_and(|own| !is_continued(earlier, own));
        if let Some(earlier) = earlier.as_ref().filter(is_other) {
            return Self { of: Some(earlier.clone()), ..Self::default() };
        }
        if own.is_some()
            && let Err(error) = aside::renew_standing(environment)
        {
            tracing::warn!(error = %super::chain(&error), "the node's files have no links");
        }
        let of = own.cloned();
        Self { of, ..Self::default() }
    }

    /// The record of the data that the links hold.
    pub const fn record(&self) -> Option<&Lineage> {
        self.of.as_ref()
    }

    /// Looks at a server that answers. `own`: its record now.
    pub async fn look(&mut self, environment: &Environment, state: &State, info: &Info, own: Option<&Lineage>) {
        if let Some(Err(error)) = self.disk.ended() {
            tracing::warn!(error = %super::chain(&error), "the links to the node's files are not up to date");
        }
        let link = info.primary_link();
        let is_primary = info.role() == Some(Role::Primary);
        let in_sync = is_primary || link.as_ref().is_some_and(|link| link.up && !link.syncing);
        if !in_sync || !self.disk.is_idle() {
            self.in_sync = None;
            return;
        }
        self.in_sync.get_or_insert_with(Instant::now);
        let Some(own) = own.filter(|own| own.replication_id == info.replication_id()) else { return };
        let is_same = is_primary || self.of.as_ref().is_none_or(|of| is_continued(of, own));
        if is_same {
            self.replaced = None;
            self.renew(environment, info, own);
            self.drop_proven(environment, state, link.map(|link| link.primary)).await;
        } else if let Some(of) = self.of.clone() {
            self.judge(environment, state, &of, link.map(|link| link.primary)).await;
        }
    }

    fn renew(&mut self, environment: &Environment, info: &Info, own: &Lineage) {
        (self.of, self.as_primary) = (Some(own.clone()), info.role() == Some(Role::Primary));
        if self.renewed.is_some_and(|at| at.elapsed() < RENEW_EVERY) || info.append_only() == AppendOnly::Rewriting {
            return;
        }
        self.renewed = Some(Instant::now());
        let environment = environment.clone();
        self.disk.begin(move || aside::renew_standing(&environment));
    }

    /// The data that the links hold was replaced: is it in the new history?
    async fn judge(&mut self, environment: &Environment, state: &State, of: &Lineage, primary: Option<Address>) {
        let since = *self.replaced.get_or_insert_with(Instant::now);
        // The server itself asked to go on from where it was, and was refused: the other has less than it had.
        if of.is_empty() {
            self.forget();
            return;
        }
        if !self.as_primary {
            match is_contained(state, primary.as_ref(), of).await {
                Some(true) => {
                    tracing::info!("what this node had is in the history of its primary");
                    self.forget();
                    return;
                }
                None if since.elapsed() < ASK_FOR => return,
                Some(false) | None => {}
            }
        }
        match aside::store_standing(environment, AsideReason::Replaced, of) {
            Ok(_) => {
                state.set_aside(aside::list(environment));
                state.set_unusable(None);
                self.forget();
            }
            // The links stay as they are, and are not renewed, until there is room.
            Err(error) => state.set_unusable(Some(&format!(
                "AsideFull: what this node had before it followed its primary is in /data/aside/.standing: {error}"
            ))),
        }
    }

    /// The next look takes the files as they are.
    fn forget(&mut self) {
        (self.of, self.as_primary, self.replaced, self.renewed) = (None, false, None, None);
    }

    /// Removes kept folders whose data is known to be in the primary's history.
    async fn drop_proven(&mut self, environment: &Environment, state: &State, primary: Option<Address>) {
        let is_due = self.in_sync.is_some_and(|since| since.elapsed() >= PROVEN_AFTER)
            && self.proven.is_none_or(|at| at.elapsed() >= PROVEN_AFTER);
        if !is_due {
            return;
        }
        self.proven = Some(Instant::now());
        for kept in state.aside() {
            let Some(record) = kept.lineage.as_ref().filter(|_| kept.reason != AsideReason::LossAccepted) else {
                continue;
            };
            if is_contained(state, primary.as_ref(), record).await == Some(true)
                && let Err(error) = aside::remove(environment, &kept.folder)
            {
                tracing::warn!(error = %super::chain(&error), folder = kept.folder, "not removed");
            }
        }
        state.set_aside(aside::list(environment));
    }
}

/// Whether data with the second record is that of the first, or what became of it.
fn is_continued(before: &Lineage, now: &Lineage) -> bool {
    now.replication_id == before.replication_id || now.previous_replication_id.as_ref() == Some(&before.replication_id)
}

/// Whether the primary's history contains what the record speaks of; of a primary, its own. `None`: its agent does not say.
async fn is_contained(state: &State, primary: Option<&Address>, record: &Lineage) -> Option<bool> {
    let config = state.config();
    let answer = match primary {
        None => state.lineage_answer(),
        Some(primary) => {
            let (ordinal, address) = config.data_nodes.iter().find(|(_, address)| *address == primary)?;
            peers::ask_agent(&config, *ordinal, address).await?
        }
    };
    // An agent that has not looked since its server has another history tells the chain of the one before.
    let followed = state.lineage().map(|own| own.replication_id)?;
    let told = answer.lineage.as_ref().map(|theirs| &theirs.replication_id);
    (answer.ancestry.of == followed && told == Some(&followed)).then(|| ancestry::contains(&answer, record))
}
