//! The record of the links on the volume, kept up with a server that is promoted or demoted.
//!
//! An engine and its agent may be killed at any time. What the next agent knows of the links is this record, and by the node's own record
//! the files may be another node's by then. So this one says first that the links hold what a second primary had.

use std::time::Duration;

use super::super::config::Environment;
use super::super::disk::Disk;
use super::super::{aside, chain};
use crate::model::lineage::Lineage;

/// What is followed of it.
#[derive(Debug, Default)]
pub(super) struct Noting {
    disk: Disk,
    /// The record that is on the volume, or that is being written there. `None`: it is not known.
    record: Option<Lineage>,
    /// Whether a demotion was seen, and the record on the volume may be older.
    is_late: bool,
}

impl Noting {
    pub(super) const fn is_idle(&self) -> bool {
        self.disk.is_idle()
    }

    /// Another way wrote this record.
    pub(super) fn note_written(&mut self, record: &Lineage) {
        self.record = Some(record.clone());
    }

    /// Waits for the end of what is being written, for as long as `limit`.
    pub(super) async fn finish(&mut self, limit: Duration) {
        self.disk.wait_until_free(limit).await;
    }

    /// The data of the links is of no interest any more.
    pub(super) fn forget(&mut self) {
        (self.record, self.is_late) = (None, false);
    }

    /// Whether what the links hold of a primary is to be noted. While it serves only its line of data is: its offset is noted with each
    /// renewal of the links.
    fn is_due(&self, of: &Lineage, serves: bool) -> bool {
        self.record.as_ref().is_none_or(|noted| {
            let is_other = (noted.role, &noted.replication_id) != (of.role, &of.replication_id);
            is_other || (!serves && noted != of)
        })
    }

    /// Looks at a server. `of`: the record of what the links hold, where that was written by this very engine as primary; `serves`: whether
    /// it is primary now. Where it was promoted or demoted since the record was written, it is written, once the volume is free.
    pub(super) fn keep_up(&mut self, environment: &Environment, of: Option<&Lineage>, serves: bool, is_free: bool) {
        // Not tried again: on such a volume the node's own record stays that of before as well.
        if let Some(Err(error)) = self.disk.ended() {
            tracing::warn!(error = %chain(&error), "the record of the links is that of before");
        }
        let due = of.filter(|of| self.is_due(of, serves)).cloned();
        self.is_late = !serves && (due.is_some() || !self.is_idle());
        if let Some(of) = due.filter(|_| is_free && self.is_idle()) {
            self.note_written(&of);
            let environment = environment.clone();
            self.disk.begin(move || aside::note_links(&environment, &of));
        }
    }

    /// Whether a demotion was seen, and the record on the volume is older.
    pub(super) const fn is_late(&self) -> bool {
        self.is_late
    }

    /// For how long it hangs that the record is written, where it does.
    pub(super) fn hangs(&self) -> Option<Duration> {
        self.disk.hangs()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::primary;
    use super::*;
    use crate::agent::aside::tests::node;
    use crate::model::Offset;

    /// An agent that was killed with its engine left links whose record was the one of before the promotion: they counted as links to
    /// what the node had of its primary, and its next agent renewed them.
    #[test]
    fn a_promotion_is_noted_at_once_and_a_demotion_before_the_record_of_the_node_says_so() {
        let environment = node("standing-noted");
        let (_, before) = primary("a", "0000", 0);
        aside::renew_links(&environment, &before).unwrap();
        let mut noting = Noting::default();
        noting.note_written(&before);
        let noted = || aside::links_record(&environment).unwrap();
        let mut is_late = |of: &Lineage, serves: bool| {
            noting.keep_up(&environment, Some(of), serves, true);
            let is_late = noting.is_late();
            while !noting.is_idle() {
                noting.disk.ended();
                std::thread::yield_now();
            }
            is_late
        };
        let (_, promoted) = primary("b", "a", 0);
        assert!(!is_late(&promoted, true), "a primary's own record waits for nothing");
        assert_eq!(noted(), promoted);
        let later = Lineage { offset: Offset(90), ..promoted.clone() };
        assert!(!is_late(&later, true));
        assert_eq!(noted(), promoted, "it is not written with each poll");
        assert!(is_late(&later, false), "what it had last is written first");
        assert_eq!(noted(), later);
        assert!(!is_late(&later, false));
        std::fs::remove_dir_all(&environment.data).unwrap();
    }
}
