//! What the links of an earlier life are taken for as an engine starts.

use super::super::config::Environment;
use super::super::{aside, chain};
use super::{FileLinks, is_continued};
use crate::model::Role;
use crate::model::lineage::{AsideReason, Lineage};

impl FileLinks {
    /// Before the engine starts: links of an earlier life whose data was replaced meanwhile stay as they are.
    pub(in crate::agent) fn open(environment: &Environment, own: Option<&Lineage>) -> Self {
        let earlier = aside::links_record(environment);
        let Some(own) = own else {
            // What a full sync brought may be in no file yet that an engine loads.
            return Self { is_without_files: earlier.is_some(), of: earlier, ..Self::default() };
        };
        let is_other = |earlier: &&Lineage| !is_continued(earlier, own);
        if let Some(earlier) = earlier.as_ref().filter(is_other) {
            return Self { of: Some(earlier.clone()), ..Self::default() };
        }
        // The files may be another node's already, and the links have what the record is of.
        let is_replaced = earlier.is_some() && !aside::is_current(environment);
        let of_own = || Self { of: Some(own.clone()), ..Self::default() };
        if is_replaced && own.role == Role::Replica && !(own.synced && own.link_up) {
            return of_own();
        }
        // A primary wrote its append-only files again after its agent looked last, or another node's took their place then: nothing tells
        // which, so the node goes on with the files, and what the links hold is kept until it is known to be in the layer. A snapshot is
        // another file each time.
        let was_primary = |of: &Lineage| {
            own.append_only == Some(true) && of.role == Role::Primary && of.replication_id == own.replication_id
        };
        if is_replaced
            && earlier.as_ref().is_some_and(was_primary)
            && let Err(error) = aside::keep_links(environment, AsideReason::Replaced, own)
        {
            tracing::warn!(error = %chain(&error), "what the node's links hold stays there: it cannot be kept aside");
            return of_own();
        }
        let mut links = of_own();
        match aside::renew_links(environment, own) {
            Ok(()) => links.noting.note_written(own),
            Err(error) => tracing::warn!(error = %chain(&error), "the node's files have no links"),
        }
        links
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::tests::{incr, primary, replace_files};
    use super::*;
    use crate::agent::aside::tests::node;

    /// A second primary follows the first while it is being stopped. The links were renewed at its next start, from the first one's files.
    #[test]
    fn links_stay_where_a_full_sync_replaced_the_files_and_the_record_is_of_before() {
        let environment = node("standing-half");
        let (_, a) = primary("a", "0000", 0);
        drop(FileLinks::open(&environment, Some(&a)));
        let held = || fs::read_to_string(incr(&environment, "aside/.standing")).unwrap();
        replace_files(&environment, "SET s 1");
        let demoted = Lineage { role: Role::Replica, ..primary("b", "a", 0).1 };
        for last in [Lineage { synced: false, ..demoted.clone() }, Lineage { link_up: false, ..demoted.clone() }] {
            let links = FileLinks::open(&environment, Some(&last));
            assert_eq!((held().as_str(), links.held()), ("SET a 1", Some(&last)));
        }
        let whole = demoted;
        drop(FileLinks::open(&environment, Some(&whole)));
        assert_eq!(held(), "SET s 1");
        fs::remove_dir_all(&environment.data).unwrap();
    }

    /// The same, where the agent had no look in between: its record was that of a primary, and the links were renewed from the other's files.
    #[test]
    fn files_that_took_the_place_of_a_primarys_unseen_leave_its_own_aside() {
        let environment = node("standing-unseen");
        let (_, a) = primary("a", "0000", 0);
        for own in [&a, &Lineage { role: Role::Replica, ..a.clone() }] {
            drop(FileLinks::open(&environment, Some(own)));
            assert_eq!(aside::list(&environment).len(), 0, "they are the same files");
        }
        aside::note_links(&environment, &a).unwrap();
        replace_files(&environment, "SET s 1");
        // It starts as a replica, and the rule wrote that into its record.
        let links = FileLinks::open(&environment, Some(&Lineage { role: Role::Replica, ..a.clone() }));
        let kept = aside::list(&environment).pop().unwrap();
        assert_eq!(kept.lineage.map(|of| (of.replication_id, of.offset)), Some((a.replication_id, a.offset)));
        let held = |folder: &str| fs::read_to_string(incr(&environment, folder)).unwrap();
        assert_eq!(
            (held(&format!("aside/{}", kept.folder)).as_str(), held("aside/.standing").as_str()),
            ("SET a 1", "SET s 1")
        );
        assert!(links.held().is_some(), "those of the files that it goes on with are judged too");
        // A server that ended before it had an append-only file of the other's data.
        let without = FileLinks::open(&environment, None);
        assert_eq!((without.held(), held("aside/.standing").as_str()), (links.held(), "SET s 1"));
        assert!(!without.is_read(&primary("c", "0000", 0).1), "a primary that began without data has it not");
        fs::remove_dir_all(&environment.data).unwrap();
    }
}
