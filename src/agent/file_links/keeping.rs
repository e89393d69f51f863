//! Links that become a kept folder, off the agent's loop: the volume may hang.

use std::time::Duration;

use tokio::time::Instant;

use super::super::aside;
use super::super::config::Environment;
use super::super::disk::Disk;
use crate::model::Offset;
use crate::model::lineage::{Aside, AsideReason, Lineage};

/// Bytes that the offset of a server may grow by besides what it appends: it sends replicas a `PING` of 14 bytes every second.
pub(super) const NOT_APPENDED: u64 = 1_024;

/// Until what failed is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What was asked of the volume, and its answer.
#[derive(Debug)]
pub(super) enum Answer {
    /// Whether commands were appended to the files that the links hold.
    HasCommands(bool),
    /// The links became this folder. `None`: there were none.
    Kept(Option<Aside>),
}

/// What is followed of it.
#[derive(Debug, Default)]
pub(super) struct Keeping {
    pub(super) disk: Disk<Answer>,
    /// Why the links are to be kept.
    pub(super) reason: Option<AsideReason>,
    pub(super) has_commands: Option<bool>,
    pub(super) failed: Option<Instant>,
}

impl Keeping {
    pub(super) const fn is_idle(&self) -> bool {
        self.disk.is_idle()
    }

    /// The data of the links is of no interest any more.
    pub(super) fn forget(&mut self) {
        (self.reason, self.has_commands, self.failed) = (None, None, None);
    }

    /// Whether commands were appended to the files that the links hold. `None`: the volume is being asked.
    pub(super) fn has_commands(&mut self, environment: &Environment) -> Option<bool> {
        if self.has_commands.is_none() && self.is_idle() {
            let environment = environment.clone();
            self.disk.begin(move || Ok(Answer::HasCommands(aside::links_have_commands(&environment))));
        }
        self.has_commands
    }

    /// Has the links become a kept folder, because their data was replaced. One that failed is tried again a second later.
    ///
    /// `appended`: bytes of the append-only files when the server said what the record says. A server goes on writing after it was asked, for
    /// as long as its agent stands still, and the folder may go only once all of it is known to be in the layer: so the record that is kept
    /// with it counts what was appended since.
    pub(super) fn keep_replaced(&mut self, environment: &Environment, of: &Lineage, appended: Option<u64>) {
        if self.failed.is_none_or(|at| at.elapsed() >= RETRY_AFTER) {
            self.begin(environment, AsideReason::Replaced, of, appended);
        }
    }

    pub(super) fn begin(
        &mut self,
        environment: &Environment,
        reason: AsideReason,
        of: &Lineage,
        appended: Option<u64>,
    ) {
        self.reason = Some(reason);
        let (environment, of) = (environment.clone(), of.clone());
        self.disk.begin(move || {
            let before = appended.unwrap_or(u64::MAX);
            let since = aside::links_appended(&environment).saturating_sub(before);
            let offset = Offset(if since > 0 { of.offset.0.saturating_add(since + NOT_APPENDED) } else { of.offset.0 });
            aside::keep_links(&environment, reason, &Lineage { offset, ..of }).map(Answer::Kept)
        });
    }
}
